"""Models being loaded: said while it lasts, for large ones take minutes, and timed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.dataset.sources import Progress

# Between two words on a load that lasts.
TICK = 1.0
BARS = "transformers.utils.logging"


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights in a checkpoint's folder, which is what loading it takes its time for."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


class Loading:
    """What loads in this process.

    Parameters
    ----------
    progress
        Told how far a load is: a name, and tensors that are there of those that are known of, or
        (0, 0) where nothing is known. A load that is over within a second is not told.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self._lock = threading.Lock()
        self._under_way = 0
        self._since = 0.0
        self._seconds = 0.0

    def seconds(self) -> float:
        """Seconds so far in which something was loading."""
        with self._lock:
            running = time.monotonic() - self._since if self._under_way else 0.0
            return self._seconds + running

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """A load, of a part with this name."""
        with self._lock:
            if not self._under_way:
                self._since = time.monotonic()
            self._under_way += 1
        ended = threading.Event()
        teller = threading.Thread(target=self._tell, args=(name, ended), daemon=True)
        if self.progress is not None:
            teller.start()
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self._seconds += time.monotonic() - self._since
            ended.set()
            if self.progress is not None:
                teller.join()

    def _tell(self, name: str, ended: threading.Event) -> None:
        """Say how far a load is, until it ends."""
        assert self.progress is not None
        counted, told = _Counted(), False
        bars: Any = None
        before: Any = None
        while not ended.wait(TICK):
            if bars is None and (bars := sys.modules.get(BARS)) is not None:
                # The library is imported by the load itself, if it needs it.
                before = bars.set_tqdm_hook(counted.bar)
            told = True
            self.progress(f"load {name}", counted.done, counted.total and counted.total + 1)
        if bars is not None:
            bars.set_tqdm_hook(before)
        if told:
            self.progress(f"load {name}", 1, 1)


class _Counted:
    """Counts what transformers' bars of loading count."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0

    def bar(self, factory: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What transformers iterates over in place of a bar."""
        items = args[0] if args else kwargs.get("iterable")
        if items is None or "weights" not in str(kwargs.get("desc", "")).lower():
            return factory(*args, **kwargs)
        return self._count(items)

    def _count(self, items: Any) -> Iterator[Any]:
        self.total += len(items)
        for item in items:
            yield item
            self.done += 1
