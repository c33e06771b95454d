"""The environment of every test: one thread, nothing downloaded or reported home, Prefect still."""

from __future__ import annotations

import os

# Tiny tensors gain nothing from threads, and lose much where other work wants the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Its console handler would write to streams that tests have closed.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
