"""Where the example world of single emoji keeps its files; packages are those of the scenes."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"
