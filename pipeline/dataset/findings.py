"""What was found in a file of a dataset, row by row, and kept beside the run.

Reading every row and trying every image is dear: what was found is used again as long as the file's
version and the settings of reading stay the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.begun import Begun
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.described import describes_itself
from pipeline.dataset.elsewhere import PLACES, Elsewhere
from pipeline.dataset.fingerprints import row_digests
from pipeline.dataset.forms.base import Left, SourceFile, is_string
from pipeline.dataset.images import ImageInspector
from pipeline.dataset.known_images import COLUMNS, KnownImages
from pipeline.storage.digests import DIGEST, digest, packed
from pipeline.storage.files import writing_whole

FINDINGS_VERSION = 12

FILE_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("image", DIGEST),
        ("image_reason", pa.string()),
        ("text", DIGEST),
        ("text_reason", pa.string()),
        ("content", DIGEST),
        ("extra", DIGEST),
        ("captions", pa.list_(pa.string())),
        ("licence", pa.string()),
        # Of an image in a file of its own.
        ("image_path", pa.string()),
        ("image_version", pa.string()),
        # Of an image of a row without a text: whether its file holds a caption.
        ("described", pa.bool_()),
        # Columns that hold the half which the row's own column of it lacks.
        *((place, pa.list_(pa.string())) for place in PLACES.values()),
    ]
)
# Read again only for the complete rows that a knowledge base is made of.
DETAILS = ("captions", "licence")
OF_IMAGE_FILES = ("image_path", "image_version", "described")
# What a catalog holds of every row.
HELD = [n for n in FILE_SCHEMA.names if n not in (*DETAILS, *PLACES.values(), *OF_IMAGE_FILES)]

# Settings that change nothing of what is read.
NOT_OF_READING = {"name", "licence", "on_duplicate", "exclude"}

_COLUMNS = b"columns"
_LEFT = b"left"

Advance = Callable[[int], None]


def reading_of(dataset: Dataset) -> str:
    """A digest of what decides what is found: the settings, and which column holds which half."""
    settings = dataset.settings.model_dump(mode="json", exclude=NOT_OF_READING)
    settings["columns"] = settings["columns"]["extra"]
    halves = dataset.columns.model_dump(include={"id", "image", "text"})
    return digest(str(FINDINGS_VERSION), json.dumps([settings, halves], sort_keys=True))


def read(
    dataset: Dataset,
    file: SourceFile,
    inspector: ImageInspector,
    known: KnownImages,
    advance: Advance | None,
    begun: Begun,
) -> pa.Table:
    """Read a file's rows and try their images but for those known; a table of `FILE_SCHEMA`.

    Rows that `begun` holds are gone past. `advance` is called with the number of rows after each batch.
    """
    batches = [begun.table(FILE_SCHEMA)]
    past = begun.rows
    for read in dataset.batches(file, known.holds):
        batch, gone = read.slice(min(past, len(read))), min(past, len(read))
        past -= gone
        if gone and advance:
            advance(gone)
        if not len(batch):
            continue
        elsewhere = Elsewhere(dataset)  # of columns that may have grown
        cells = batch.column("image")
        images, paths = (cells.field(name).to_pylist() for name in ("bytes", "path"))
        reasons = batch.column("image_reason").to_pylist()
        digests: list[str | None] = [None] * len(batch)
        versions: list[str | None] = [None] * len(batch)
        text_reasons = batch.column("text_reason").to_pylist()
        described = [False] * len(batch)
        there = [i for i, reason in enumerate(reasons) if reason is None]
        new = [i for i in there if images[i] is not None]
        for i in there:
            if images[i] is None:
                digests[i], reasons[i], versions[i] = known.finding(paths[i])
                described[i] = known.is_described(paths[i])
        for i, fault in zip(new, inspector.inspect([images[i] for i in new]), strict=True):
            digests[i] = digest(images[i]) if fault is None else None
            reasons[i], versions[i] = fault, known.version_read(paths[i], fault)
            if fault is None and text_reasons[i]:
                described[i] = describes_itself(images[i])
        texts = batch.column("text").to_pylist()
        extra = batch.column("extra") if "extra" in batch.schema.names else None
        ids = batch.column("id").to_pylist()
        captions = [
            None if reason else digest(*text)
            for text, reason in zip(texts, text_reasons, strict=True)
        ]
        rows = {
            "position": batch.column("position"),
            "id": ids,
            "image": packed(digests),
            "image_reason": reasons,
            "text": packed(captions),
            "text_reason": text_reasons,
            "content": packed(
                digest(*(part or "" for part in row))
                for row in zip(ids, digests, captions, strict=True)
            ),
            "captions": texts,
            "image_path": [p if v else None for p, v in zip(paths, versions, strict=True)],
            "image_version": versions,
            "described": described,
            "licence": _licences(extra, len(batch)),
            "extra": packed([None] * len(batch) if extra is None else row_digests(extra)),
            PLACES["image"]: elsewhere.of("image", extra, [d is None for d in digests]),
            PLACES["text"]: elsewhere.of("text", extra, [c is None for c in captions]),
        }
        batches.append(pa.table(rows, schema=FILE_SCHEMA))
        begun.add(batches[-1])
        if advance:
            advance(len(batch))
    return pa.concat_tables(batches)


def _licences(extra: pa.StructArray | None, rows: int) -> pa.Array:
    """What rows say of their licence, in columns of that name."""
    found = pa.nulls(rows, pa.string())
    for name in ("licence", "license"):
        if extra is not None and name in extra.type.names and _has_text(extra.type[name].type):
            found = pc.coalesce(found, pc.struct_field(extra, name).cast(pa.string()))
    return found


def _has_text(kind: pa.DataType) -> bool:
    return is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def place_of(folder: Path, file: SourceFile) -> Path:
    """Where the findings of a file are kept."""
    return folder / f"{digest(file.name)}.parquet"


def kept(folder: Path, file: SourceFile, reading: str) -> pa.Table | None:
    """What was found in a file, columns `HELD`; None where it has to be read (again)."""
    return _found(folder, file, {"version": file.version, "reading": reading}, HELD)


def known_images(folder: Path, file: SourceFile, reading: str) -> pa.Table | None:
    """What was found in a file's images, of whatever version it was; None if it was never read."""
    return _found(folder, file, {"reading": reading}, COLUMNS)


def kept_columns(folder: Path, file: SourceFile) -> dict[str, int]:
    """The columns of a file and their kinds, as they were kept with what was found in it."""
    metadata = pq.read_schema(place_of(folder, file)).metadata or {}
    return dict(json.loads(metadata.get(_COLUMNS, b"{}")))


def _found(
    folder: Path, file: SourceFile, wanted: Mapping[str, str], columns: Sequence[str]
) -> pa.Table | None:
    try:
        with pq.ParquetFile(place_of(folder, file)) as found:
            metadata = found.schema_arrow.metadata or {}
            if any(metadata.get(key.encode()) != value.encode() for key, value in wanted.items()):
                return None
            return found.read(columns=list(columns)).replace_schema_metadata(None)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def keep(folder: Path, file: SourceFile, reading: str, table: pa.Table, dataset: Dataset) -> None:
    """Keep what was found in a file, of what kinds its columns are, and what it holds that is not used."""
    told_of = getattr(dataset.source, "left", None)
    left: Mapping[str, Left] = {} if told_of is None else told_of(file.name)
    told = {"file": file.name, "version": file.version, "reading": reading}
    told[_COLUMNS.decode()] = json.dumps(dataset.learned(file.name))
    told[_LEFT.decode()] = json.dumps({kind: asdict(some) for kind, some in left.items()})
    with writing_whole(place_of(folder, file)) as scratch:
        pq.write_table(table.replace_schema_metadata(told), scratch, compression="zstd")


def described_rows(folder: Path, files: Sequence[SourceFile]) -> int:
    """Rows without a text whose image's file holds a caption."""
    count = 0
    for file in files:
        found = pq.read_table(place_of(folder, file), columns=["text", "described"])
        count += pc.sum(pc.and_(found["described"], pc.is_null(found["text"]))).as_py() or 0
    return count


def left_over(folder: Path, files: Sequence[SourceFile]) -> dict[str, Left]:
    """What lies in files that were read and is not used, by its kind."""
    found: dict[str, Left] = {}
    for file in files:
        metadata = pq.read_schema(place_of(folder, file)).metadata or {}
        for kind, some in json.loads(metadata.get(_LEFT, b"{}")).items():
            if some["count"]:
                together = found.setdefault(kind, Left())
                together.count += some["count"]
                together.first += some["first"]
    return found
