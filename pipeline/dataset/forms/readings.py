"""Readings of files that only go forward, left open so that the next rows go on from there.

Rows that are asked for by and by at ascending positions then cost one pass over their file, and not
one from its beginning each time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import numpy as np

from pipeline.dataset.forms.base import Batch, select_rows

# One for the rows that a run goes through, one for the pairs that it looks up beside them.
OPEN = 2


class Reading:
    """Batches in order, of which the last one is held until the next is asked for."""

    def __init__(self, key: Hashable, batches: Iterator[Batch]) -> None:
        self.key = key
        self._batches = batches
        self._held: Batch | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._held is not None:
            yield self._held
        for batch in self._batches:
            if len(batch[0]):
                self._held = batch
                yield batch

    @property
    def first(self) -> int:
        """The lowest position that it can still give."""
        return 0 if self._held is None else int(self._held[0][0])


class Readings:
    """The readings of a source that were used last. Not for several threads at a time."""

    def __init__(self) -> None:
        self._open: list[Reading] = []

    def take(
        self,
        key: Hashable,
        positions: np.ndarray,
        start: Callable[[], Iterator[Batch]],
        keep: bool = True,
    ) -> Iterator[Batch]:
        """Rows by position, from an open reading that is not past them, or from a new one.

        Parameters
        ----------
        key
            Tells what is read: file, version, part, columns.
        positions
            Sorted, int64 [n].
        start
            Begins a new reading. Its batches may begin at any position up to the first one, and
            what they hold open is to be freed with them.
        keep
            Leave the reading open.
        """
        if not len(positions):
            return
        fit = [r for r in self._open if r.key == key and r.first <= positions[0]]
        reading = max(fit, key=lambda r: r.first) if fit else Reading(key, start())
        # One that fails, or that is left before its end, is not gone on with.
        self._open = [r for r in self._open if r is not reading]
        yield from select_rows(reading, positions)
        if keep:
            self._open = [*self._open, reading][-OPEN:]
