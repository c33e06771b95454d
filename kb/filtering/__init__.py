"""Cluster filter: which external pairs belong to the internal domain, each with its verdict."""

from kb.filtering.cluster_filter import FEWEST_TO_MEASURE, ClusterFilter
from kb.filtering.settings import FilterSettings
from kb.filtering.verdicts import NO_THRESHOLD, VERDICTS, FilterVerdicts

__all__ = [
    "FEWEST_TO_MEASURE",
    "NO_THRESHOLD",
    "VERDICTS",
    "ClusterFilter",
    "FilterSettings",
    "FilterVerdicts",
]
