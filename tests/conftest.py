"""The environment of every test: nothing is downloaded, nothing reports home, Prefect keeps still."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Its console handler would write to streams that tests have closed.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
