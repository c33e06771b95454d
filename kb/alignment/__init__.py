"""Alignment of the external side: mutual neighbours under CSLS, and the rotation they ask for."""

from kb.alignment.orthogonal import AlignmentSettings, OrthogonalAlignment, procrustes

__all__ = ["AlignmentSettings", "OrthogonalAlignment", "procrustes"]
