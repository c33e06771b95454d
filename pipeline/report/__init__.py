"""The report of a run: one self-contained HTML page that opens from disk."""

from __future__ import annotations

from pipeline.report.page import completed_rows, write_report
from pipeline.report.projection import Projection, project

__all__ = ["Projection", "completed_rows", "project", "write_report"]
