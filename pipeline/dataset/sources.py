"""The datasets of a run: the incomplete one and the external ones, opened and scanned once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.dataset.catalog import Catalog, encoded_images, fetch, known_columns
from pipeline.dataset.dataset import Dataset, DatasetError, DatasetSettings
from pipeline.dataset.settings import INTERNAL, ExternalSettings

# Called with the name of a step, what is done of it, and the total (0: unknown).
Progress = Callable[[str, int, int], None]


def quiet(step: str, done: int, total: int) -> None:
    """The progress of whoever does not watch."""


class Sources:
    """The datasets that a run reads, by the names that its pairs know them by.

    Parameters
    ----------
    dataset : DatasetSettings
        The incomplete dataset.
    external : sequence of ExternalSettings
    base : Path
        Where relative paths start.
    folder : Path
        Where catalogs are kept, a folder a source.
    """

    def __init__(
        self,
        dataset: DatasetSettings,
        external: Sequence[ExternalSettings],
        base: Path,
        folder: Path,
    ) -> None:
        self._settings = dataset
        self._external = external
        self._base = base
        self._folder = folder
        self._catalogs: dict[str, Catalog] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The incomplete dataset."""
        return self._open(INTERNAL, self._settings)

    @cached_property
    def externals(self) -> dict[str, Dataset]:
        """The external datasets by name."""
        return {each.name: self._open(each.name, each) for each in self._external}

    def _open(self, name: str, settings: DatasetSettings) -> Dataset:
        folder = self._folder / name
        return Dataset.open(settings, self._base, known_columns(folder), folder)

    def of(self, name: str) -> Dataset:
        """The dataset that a pair's `source` names."""
        return self.dataset if name == INTERNAL else self.externals[name]

    def licence(self, name: str) -> str | None:
        """The licence of all pairs of a source, where the settings name one."""
        return next((each.licence for each in self._external if each.name == name), None)

    def catalog(self, name: str = INTERNAL, progress: Progress = quiet) -> Catalog:
        """The rows of a source, scanned on first use."""
        if name in self._catalogs:
            return self._catalogs[name]
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            progress(f"scan {name}", done, 0)

        found = Catalog.scan(self.of(name), self._folder / name, advance)
        progress(f"scan {name}", len(found), len(found))
        self._catalogs[name] = found
        return found

    def catalogs(self, progress: Progress = quiet) -> dict[str, Catalog]:
        """The rows of every source, the incomplete dataset first."""
        names = [INTERNAL, *(each.name for each in self._external)]
        return {name: self.catalog(name, progress) for name in names}

    def encoded_pictures(self, pairs: Sequence[Mapping[str, Any]]) -> list[bytes | None]:
        """The picture files of pairs, known by `source`, `file` and `position`; None: none there.

        So it is too where the file of a pair, or its row in it, is no longer there.
        """
        found: list[bytes | None] = [None] * len(pairs)
        by_source: dict[str, list[int]] = {}
        for number, pair in enumerate(pairs):
            by_source.setdefault(pair["source"], []).append(number)
        for source, wanted in by_source.items():
            dataset = self.of(source)
            files = {file.name: number for number, file in enumerate(dataset.files)}
            there = [n for n in wanted if pairs[n]["file"] in files]
            places = [(files[pairs[n]["file"]], pairs[n]["position"]) for n in there]
            for number, data in zip(there, _pictures(dataset, places), strict=True):
                found[number] = data
        return found


def _pictures(dataset: Dataset, places: Sequence[tuple[int, int]]) -> list[bytes | None]:
    """The picture files of rows by place; after an error one by one, None for those that have it."""
    if not places:
        return []
    try:
        return list(encoded_images(fetch(dataset, places)).to_pylist())
    except (DatasetError, LookupError, pa.ArrowException):
        if len(places) == 1:
            return [None]
    return [_pictures(dataset, [place])[0] for place in places]
