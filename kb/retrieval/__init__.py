"""Two-stage fusion retrieval: the pairs that ground a row's missing half."""

from kb.retrieval.fusion import FusionRetriever, RetrievalSettings
from kb.retrieval.ranking import Hit, Neighbours

__all__ = ["FusionRetriever", "Hit", "Neighbours", "RetrievalSettings"]
