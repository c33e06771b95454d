"""One typed config: every section's settings, put together."""

from __future__ import annotations

from pipeline.config.config import Config, load_config

__all__ = ["Config", "load_config"]
