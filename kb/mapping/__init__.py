"""Cross-modal mapping: the pseudo-embedding of a row's missing half, from its observed half."""

from kb.mapping.candidates import CANDIDATES
from kb.mapping.cross_modal import CrossModalMapping
from kb.mapping.settings import MappingSettings, NoCompletePairs

__all__ = ["CANDIDATES", "CrossModalMapping", "MappingSettings", "NoCompletePairs"]
