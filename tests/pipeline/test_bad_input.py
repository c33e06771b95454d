"""All bad input in one file among good rows: what becomes of each half, and why."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.catalog import Catalog
from pipeline.dataset import Dataset, DatasetError, DatasetSettings

GOOD_ROWS = 50


def _encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _noise(size: int = 64) -> Image.Image:
    values = np.random.default_rng(size).integers(0, 256, (size, size, 3))
    return Image.fromarray(values.astype(np.uint8))


def _palette_with_alpha() -> bytes:
    return _encoded(_noise().quantize(16), transparency=3)


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(_noise(), "JPEG", exif=exif)


def _animated() -> bytes:
    frames = [Image.new("P", (8, 8), colour) for colour in range(3)]
    return _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _bomb() -> bytes:
    """A PNG whose header says 30,000 x 30,000."""
    data = bytearray(_encoded(_noise()))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


PNG = _encoded(_noise())
BOMB = _bomb()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
SIXTEEN = _encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000))

# name: (image bytes, image path, text, missing, reason of the image, reason of the text)
TABLE = {
    "cmyk": (_encoded(_noise().convert("CMYK"), "JPEG"), None, "a", None, None, None),
    "16 bit": (SIXTEEN, None, "a", None, None, None),
    "palette with alpha": (_palette_with_alpha(), None, "a", None, None, None),
    "exif-rotated": (_rotated(), None, "a", None, None, None),
    "animated": (_animated(), None, "a", None, None, None),
    "1x1": (_encoded(_noise(1)), None, "a", None, None, None),
    "emoji": (PNG, None, "\U0001f469\u200d\U0001f680 \U0001f1fa\U0001f1f3", None, None, None),
    "right to left": (PNG, None, "קפה ומאפה", None, None, None),
    "100,000 characters": (PNG, None, "long " * 20_000, None, None, None),
    "truncated": (PNG[: len(PNG) // 2], None, "a", "image", "truncated", None),
    "empty image": (b"", None, "a", "image", "empty", None),
    "bomb": (BOMB, None, "a", "image", "over the pixel limit", None),
    "svg": (SVG, None, "a", "image", "svg without a decoder", None),
    "heic": (HEIC, None, "a", "image", "heic without a decoder", None),
    "a url": (None, "https://example.com/a.png", "a", "image", "url", None),
    "out of the folder": (None, "../../etc/passwd", "a", "image", "outside", None),
    "no such file": (None, "nowhere.png", "a", "image", "not found", None),
    "null image": (None, None, "a", "image", "null", None),
    "null text": (PNG, None, None, "text", None, "null"),
    "empty text": (PNG, None, "", "text", None, "empty"),
    "white space": (PNG, None, " \n\t", "text", None, "whitespace"),
    "nul alone": (PNG, None, "\0", "text", None, "invisible characters"),
    "neither": (None, None, None, "both", "null", "null"),
    "both bad": (b"", None, " ", "both", "empty", "whitespace"),
}


def _table() -> pa.Table:
    rows = [
        {"id": name, "image": {"bytes": data, "path": path}, "text": text}
        for name, (data, path, text, *_) in TABLE.items()
    ]
    good = [
        {
            "id": f"good {i}",
            "image": {"bytes": _encoded(_noise(8 + i)), "path": None} if i % 2 else None,
            "text": None if i % 2 else f"caption {i}",
        }
        for i in range(GOOD_ROWS)
    ]
    mixed = [*good[:20], *rows, *good[20:]]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("image", image), ("text", pa.string())])
    return pa.Table.from_pylist(mixed, schema=schema)


def _scan(path: Path, **settings) -> Catalog:
    dataset = Dataset.open(DatasetSettings(path=str(path), **settings), path.parent)
    return Catalog.scan(dataset, path.parent / "catalog")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("data") / "all.parquet"
    pq.write_table(_table(), path, row_group_size=16)
    return _scan(path)


@pytest.mark.parametrize("name", TABLE)
def test_each_bad_row_has_its_outcome_and_reason(scanned: Catalog, name: str) -> None:
    rows = {row["id"]: row for row in scanned.table.to_pylist()}
    *_, missing, image_reason, text_reason = TABLE[name]
    row = rows[name]
    assert (row["missing"], row["image_reason"], row["text_reason"]) == (
        missing,
        image_reason,
        text_reason,
    )


def test_the_good_rows_among_them_are_all_there(scanned: Catalog) -> None:
    rows = {row["id"]: row for row in scanned.table.to_pylist()}
    for i in range(GOOD_ROWS):
        assert rows[f"good {i}"]["missing"] == ("text" if i % 2 else "image")
    assert len(scanned) == GOOD_ROWS + len(TABLE)


def test_observed_bytes_are_read_back_unchanged(scanned: Catalog) -> None:
    dataset = scanned.dataset
    table = dataset.fetch(dataset.files[0], list(range(len(scanned))))
    read = {row["id"]: row for row in table.to_pylist()}
    for name, (data, _, text, missing, *_) in TABLE.items():
        if missing is None:
            assert read[name]["image"]["bytes"] == data
            assert read[name]["text"] == [text]


def test_duplicate_ids_name_both_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b", "a"], "text": ["x"] * 3}), tmp_path / "d.parquet")
    with pytest.raises(DatasetError, match="'a' stands twice"):
        _scan(tmp_path / "d.parquet")
    kept = _scan(tmp_path / "d.parquet", on_duplicate="first")
    assert kept.table["id"].to_pylist() == ["a", "b"]


def _cut(folder: Path) -> Path:
    path = folder / "d.parquet"
    pq.write_table(_table(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _drift(folder: Path) -> Path:
    (folder / "d").mkdir()
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), folder / "d" / "a.parquet")
    pq.write_table(pa.table({"id": [1], "text": ["x"]}), folder / "d" / "b.parquet")
    return folder / "d"


def _null_id(folder: Path) -> Path:
    pq.write_table(pa.table({"id": ["a", None], "text": ["x", "y"]}), folder / "d.parquet")
    return folder / "d.parquet"


def _latin(folder: Path) -> Path:
    (folder / "d.csv").write_bytes(b"id,text\n1,caf\xe9\n")
    return folder / "d.csv"


def _no_rows(folder: Path) -> Path:
    pq.write_table(_table().slice(0, 0), folder / "d.parquet")
    return folder / "d.parquet"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_cut, r"d\.parquet is not a whole Parquet file"),
        (_drift, r"'id' is int64 in b\.parquet but string in a\.parquet"),
        (_null_id, "row 1: the id .* is null"),
        (_latin, "not UTF-8"),
        (_no_rows, "has no rows"),
    ],
)
def test_what_ends_a_run_before_it_starts_is_said_in_one_line(
    tmp_path: Path, make, said: str
) -> None:
    with pytest.raises(DatasetError, match=said) as raised:
        _scan(make(tmp_path))
    assert "\n" not in str(raised.value)
