"""Two-stage fusion retrieval: the pairs that ground a row's missing half."""

from kb.retrieval.fusion import FusionRetriever
from kb.retrieval.ranking import Hit, Neighbours
from kb.retrieval.settings import RetrievalSettings

__all__ = ["FusionRetriever", "Hit", "Neighbours", "RetrievalSettings"]
