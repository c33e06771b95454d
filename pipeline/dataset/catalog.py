"""What a dataset holds, row by row: its id, which half is missing and why, and digests of content."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.begun import Begun
from pipeline.dataset.dataset import Dataset, DatasetError
from pipeline.dataset.elsewhere import elsewhere
from pipeline.dataset.findings import (
    DETAILS,
    FILE_SCHEMA,
    HELD,
    Advance,
    described_rows,
    keep,
    kept,
    kept_columns,
    known_images,
    left_over,
    place_of,
    read,
    reading_of,
)
from pipeline.dataset.forms.base import Left
from pipeline.dataset.forms.reasons import NO_FILE, by_kind
from pipeline.dataset.ids import with_ids, without_duplicates
from pipeline.dataset.images import ImageInspector
from pipeline.dataset.known_images import COLUMNS, KnownImages
from pipeline.dataset.opening import found_paths, has_paths
from pipeline.storage.digests import digest
from pipeline.storage.files import read_json, write_changed

COLUMNS_FILE = "columns.json"
_HALVES = {"id", "image", "text"}
# Of the halves; of interest where rows are complete, and read back from the findings then.
_DIGESTS = ("image", "text")

logger = logging.getLogger(__name__)


class Catalog:
    """The rows of a dataset in reading order.

    Attributes
    ----------
    dataset : Dataset
    table : pyarrow.Table
        Columns `file` (number in `dataset.files`), `position`, `id`, `image_reason`, `text_reason`
        (why a half is missing), `content` (digest of the id and both halves), `extra` (digest of the
        pass-through columns), `missing` ("image", "text", "both" or null). Of digests 16 bytes each,
        so that a row takes at most 64 beside its id.
    """

    def __init__(self, dataset: Dataset, table: pa.Table, folder: Path) -> None:
        self.dataset = dataset
        self.table = table
        self._folder = folder

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def scan(cls, dataset: Dataset, folder: Path, advance: Advance | None = None) -> Catalog:
        """Read what is new since the last scan, and put all files together.

        Parameters
        ----------
        dataset
        folder
            Where the findings are kept, a file each; made when needed.
        advance
            Called with the number of rows after each batch.

        Raises
        ------
        DatasetError
            No rows, a null id, or an id that stands twice while `on_duplicate` is "error".
        """
        settings = dataset.settings
        dataset.learn("", {})
        if has_paths(folder):
            dataset.watch_images()
        while True:
            columns = dataset.columns
            tables = _scan(dataset, folder, advance)
            # A column that came late may be the one of a half that none was known for.
            if dataset.columns.model_dump(include=_HALVES) == columns.model_dump(include=_HALVES):
                break
        dataset.check_read()
        write_changed(folder / COLUMNS_FILE, json.dumps(dataset.learned()))
        table = pa.concat_tables(tables or [FILE_SCHEMA.empty_table()])
        if not len(table):
            raise DatasetError(f"{settings.path}: no rows")
        table = _with_missing(table)
        table = with_ids(table, dataset)
        if dataset.excluded:
            left_out = pc.is_in(table["id"], pa.array(sorted(dataset.excluded), pa.string()))
            table = table.filter(pc.invert(left_out))
        table = without_duplicates(table, dataset).drop_columns(list(_DIGESTS))
        for name in ("image_reason", "text_reason"):
            few = table[name].dictionary_encode()
            table = table.set_column(table.schema.get_field_index(name), name, few)
        # In one piece: rows are picked from it again and again.
        found = cls(dataset, table.unify_dictionaries().combine_chunks(), folder)
        if not has_paths(folder) and found._names_files():
            found_paths(folder)
            if dataset.watch_images():
                return cls.scan(dataset, folder, advance)
        return found

    def _names_files(self) -> bool:
        """Whether rows name images in files of their own, also such as are not there."""
        lost = any((r or "").startswith(NO_FILE) for r in _tally(self.table["image_reason"]))
        return lost or next(self.image_paths(), None) is not None

    def details(self) -> pa.Table:
        """Columns `captions` and `licence` of the complete rows, in their order."""
        return self._of_complete(DETAILS)

    def digests(self, half: str) -> list[str]:
        """Digests in hex of a half, "image" or "text", of the complete rows, in their order."""
        return [value.hex() for value in self._of_complete([half])[half].to_pylist()]

    def _of_complete(self, names: Sequence[str]) -> pa.Table:
        """Columns of what was found in the files, of the complete rows in their order."""
        complete = self.complete()
        # Rows are in reading order, so that those of a file lie together.
        numbers = complete["file"].to_numpy()
        bounds = np.searchsorted(numbers, np.arange(len(self.dataset.files) + 1)).tolist()
        tables = [pa.schema([FILE_SCHEMA.field(name) for name in names]).empty_table()]
        for file, (start, end) in zip(self.dataset.files, pairwise(bounds), strict=True):
            if start == end:
                continue
            found = pq.read_table(place_of(self._folder, file), columns=["position", *names])
            own = complete["position"].slice(start, end - start)
            places = pc.index_in(own, found["position"])
            tables.append(found.select(names).take(places).replace_schema_metadata(None))
        return pa.concat_tables(tables)

    def image_paths(self) -> Iterator[str]:
        """The paths of images in files of their own that rows name."""
        for file in self.dataset.files:
            found = pq.read_table(place_of(self._folder, file), columns=["image_path"])
            yield from pc.drop_null(found["image_path"]).to_pylist()

    def elsewhere(self, half: str) -> Counter[str]:
        """How many rows lack a half that another column has, by that column."""
        places = [place_of(self._folder, file) for file in self.dataset.files]
        return elsewhere(places, self.table, half)

    def described(self) -> int:
        """How many rows without a text have a picture whose file holds a caption."""
        return described_rows(self._folder, self.dataset.files)

    def left_over(self) -> dict[str, Left]:
        """What lies in the dataset's files and is not used, by its kind."""
        return left_over(self._folder, self.dataset.files)

    def has(self, half: str) -> pa.ChunkedArray:
        """Which rows have a half, "image" or "text"."""
        return pc.invert(pc.is_in(self.table["missing"], pa.array([half, "both"])))

    def complete(self) -> pa.Table:
        """The rows with both halves."""
        return self.table.filter(pc.is_null(self.table["missing"]))

    def counts(self) -> dict[str, int]:
        """Rows by what is missing: complete, text, image, both."""
        found = _tally(self.table["missing"])
        names = {"complete": None, "text": "text", "image": "image", "both": "both"}
        return {name: found.get(value, 0) for name, value in names.items()}

    def rows_by_file(self) -> tuple[list[int], list[int]]:
        """Numbers of the files that hold rows, and how many each."""
        numbers, counts = np.unique(self.table["file"].to_numpy(), return_counts=True)
        return numbers.tolist(), counts.tolist()

    def reasons(self) -> dict[str, dict[str, int]]:
        """Per half, how often each reason of its absence was found."""
        return {
            half: by_kind({r: n for r, n in _tally(self.table[f"{half}_reason"]).items() if r})
            for half in ("image", "text")
        }

    def content(self) -> str:
        """A digest of all ids and contents, whatever the files and the order of rows."""
        # A sum does not mind the order, and takes a tenth of the time of sorting a million.
        halves = np.frombuffer(b"".join(self.table["content"].to_pylist()), "<u8")
        sums = halves.reshape(-1, 2).sum(axis=0, dtype=np.uint64)
        return digest(str(len(self)), *map(str, sums.tolist()))


def known_columns(folder: Path) -> dict[str, int]:
    """The columns that the last scan found and their kinds, where they grow as files are read."""
    return dict(read_json(folder / COLUMNS_FILE) or {})


def _scan(dataset: Dataset, folder: Path, advance: Advance | None) -> list[pa.Table]:
    """What is found in each file, with the file's number."""
    settings = dataset.settings
    reading = reading_of(dataset)
    tables = []
    with ImageInspector(settings.max_pixels, settings.decode_seconds) as inspector:
        for number, file in enumerate(dataset.files):
            found = kept(folder, file, reading)
            if found is None:
                begun = Begun(folder, file, reading)
                before = known_images(folder, file, reading)
                tried = begun.table(FILE_SCHEMA).select(COLUMNS)
                known = KnownImages(
                    dataset, tried if before is None else pa.concat_tables([before, tried])
                )
                found = read(dataset, file, inspector, known, advance, begun)
                keep(folder, file, reading, found, dataset)
                begun.clear()
                found = found.select(HELD)
            else:
                dataset.learn(file.name, kept_columns(folder, file))
                if advance:
                    advance(len(found))
            files = pa.array(np.full(len(found), number, np.int32))
            tables.append(found.append_column("file", files))
    return tables


def _tally(column: pa.ChunkedArray) -> dict[str | None, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _with_missing(table: pa.Table) -> pa.Table:
    no_image, no_text = pc.is_null(table["image"]), pc.is_null(table["text"])
    missing = pc.case_when(
        pc.make_struct(pc.and_(no_image, no_text), no_image, no_text),
        "both",
        "image",
        "text",
    )
    return table.append_column("missing", missing.cast(pa.string()))


def fetch(dataset: Dataset, places: Iterable[tuple[int, int]]) -> pa.Table:
    """Rows by (number of the file, position), in the order asked for; columns as `Dataset.fetch`.

    Their images may be more than one array of Arrow's holds (2 GB): see `encoded_images`.
    """
    wanted = list(places)
    by_file: dict[int, list[int]] = {}
    for file, position in wanted:
        by_file.setdefault(file, []).append(position)
    order: dict[tuple[int, int], int] = {}
    tables = []
    for file, positions in by_file.items():
        unique = sorted(set(positions))
        table = dataset.fetch(dataset.files[file], unique)
        for position in table["position"].to_pylist():
            order[file, position] = len(order)
        tables.append(table)
    table = pa.concat_tables(tables)
    rows = [order[place] for place in wanted]
    if rows == list(range(len(table))):
        return table
    # Slices share their bytes; a take would copy all images into one array.
    return pa.concat_tables([table.slice(row, 1) for row in rows])


def stream(dataset: Dataset, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Some of a catalog's rows in reading order, as `Dataset.stream` gives them."""
    files, positions = rows["file"].to_numpy(), rows["position"].to_numpy()
    starts = np.flatnonzero(np.diff(files, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(files)]):
        yield from dataset.stream(dataset.files[files[start]], positions[start:end])


def encoded_images(rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """The encoded images of rows as they were read, in as many pieces."""
    return pc.struct_field(rows["image"], "bytes")
