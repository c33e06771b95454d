"""All bad input in one file among good rows: what becomes of each half, and why."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetError, DatasetSettings
from pipeline.job import Job
from tests import quick_worlds
from tests.pictures import endless_jpeg

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

# Input -> outcome and reason: (image bytes, image path, text, missing half, reason of the image,
# reason of the text). What lacks nothing is observed, what lacks one half is completed, and what
# lacks both is rejected.
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
    "empty image": (b"", None, "a", "image", "empty image", None),
    "bomb": (BOMB, None, "a", "image", "over the pixel limit", None),
    "svg": (SVG, None, "a", "image", "svg without a decoder", None),
    "heic": (HEIC, None, "a", "image", "heic without a decoder", None),
    "a url": (
        None,
        "https://example.com/a.png",
        "a",
        "image",
        "only a URL 'https://example.com/a.png'",
        None,
    ),
    "out of the folder": (
        None,
        "../../etc/passwd",
        "a",
        "image",
        "outside the data's folder '../../etc/passwd'",
        None,
    ),
    "no such file": (None, "nowhere.png", "a", "image", "no such file 'nowhere.png'", None),
    "takes for ever": (endless_jpeg(), None, "a", "image", "took too long to decode", None),
    "null image": (None, None, "a", "image", "no image in the row", None),
    "null text": (PNG, None, None, "text", None, "no text in the row"),
    "empty text": (PNG, None, "", "text", None, "empty text"),
    "white space": (PNG, None, " \n\t", "text", None, "only white space"),
    "nul alone": (PNG, None, "\0", "text", None, "only invisible characters"),
    "neither": (None, None, None, "both", "no image in the row", "no text in the row"),
    "both bad": (b"", None, " ", "both", "empty image", "only white space"),
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


def _scan(path: Path, **settings: Any) -> Catalog:
    dataset = Dataset.open(DatasetSettings(path=str(path), **settings), path.parent)
    return Catalog.scan(dataset, path.parent / "catalog")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A whole run over the file."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "data").mkdir()
    pq.write_table(_table(), folder / "data" / "all.parquet", row_group_size=16)
    dataset = {"path": "data", "decode_seconds": 3}
    return quick_worlds.run(quick_worlds.config(folder, dataset=dataset))[0]


@pytest.fixture(scope="module")
def done(job: Job) -> dict[str, dict[str, Any]]:
    return quick_worlds.completed(job)


@pytest.mark.parametrize("name", TABLE)
def test_each_bad_row_has_its_outcome_and_reason(
    done: dict[str, dict[str, Any]], name: str
) -> None:
    data, path, text, missing, image_reason, text_reason = TABLE[name]
    row = done[name]
    if missing is None:
        assert (row["status"], row["missing"], row["reason"]) == ("observed", None, None)
        assert (row["image"], row["text"]) == ({"bytes": data, "path": path}, text)
    elif missing == "both":
        why = f"image: {image_reason}; text: {text_reason}"
        assert (row["status"], row["missing"], row["reason"]) == ("rejected", None, why)
        assert row["image"] is None
    else:
        reason = image_reason or text_reason
        assert (row["status"], row["missing"], row["reason"]) == ("completed", missing, reason)
        if missing == "text":
            assert row["image"]["bytes"] == data and row["text"].strip()
        else:
            assert row["text"] == text and Image.open(io.BytesIO(row["image"]["bytes"])).load()


def test_the_good_rows_among_them_are_all_completed(done: dict[str, dict[str, Any]]) -> None:
    for i in range(GOOD_ROWS):
        row = done[f"good {i}"]
        assert (row["status"], row["missing"]) == ("completed", "text" if i % 2 else "image")
        assert row["image"]["bytes"] and row["text"]
    assert len(done) == GOOD_ROWS + len(TABLE)


def _as_seen() -> dict[str, Image.Image]:
    """The odd pictures as a person sees them, made without decoding them."""
    cmyk = Image.open(io.BytesIO(TABLE["cmyk"][0])).convert("RGB")
    grey = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000 / 257).astype(np.uint8)
    palette = Image.open(io.BytesIO(TABLE["palette with alpha"][0])).convert("RGBA")
    white = Image.new("RGBA", palette.size, "white")
    return {
        "cmyk": cmyk,
        "16 bit": Image.fromarray(grey).convert("RGB"),
        "palette with alpha": Image.alpha_composite(white, palette).convert("RGB"),
        "exif-rotated": _noise().transpose(Image.Transpose.ROTATE_270),
        "animated": Image.open(io.BytesIO(TABLE["animated"][0])).convert("RGB"),
        "1x1": _noise(1),
    }


@pytest.mark.parametrize("name", _as_seen())
def test_odd_pictures_are_embedded_as_they_look(job: Job, name: str) -> None:
    knowledge = job.knowledge.checked()
    place = knowledge.pairs["id"].to_pylist().index(name)
    held = np.asarray(knowledge.embeddings["image"][place], np.float32)
    (expected,) = job.models.encoder.encode([_as_seen()[name]], "image")
    assert held @ expected > 0.9995


def test_the_first_of_duplicate_ids_is_kept_where_asked(tmp_path: Path) -> None:
    kept = _scan(_twice(tmp_path), on_duplicate="first")
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


def _twice(folder: Path) -> Path:
    pq.write_table(pa.table({"id": ["a", "b", "a"], "text": ["x"] * 3}), folder / "d.parquet")
    return folder / "d.parquet"


def _latin(folder: Path) -> Path:
    (folder / "d.csv").write_bytes(b"id,text\n1,caf\xe9\n")
    return folder / "d.csv"


def _no_rows(folder: Path) -> Path:
    pq.write_table(_table().slice(0, 0), folder / "d.parquet")
    return folder / "d.parquet"


ENDS = {
    "a Parquet file cut in half": (_cut, r"d\.parquet is not a whole Parquet file"),
    "schema drift": (_drift, r"'id' is int64 in b\.parquet but string in a\.parquet"),
    "duplicate ids": (_twice, r"'a' stands twice: d\.parquet row 0 and d\.parquet row 2"),
    "text that is not UTF-8": (_latin, "not UTF-8"),
    "no rows": (_no_rows, "has no rows"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_run_before_it_starts_has_status_2_and_one_line(
    tmp_path: Path, name: str
) -> None:
    make, said = ENDS[name]
    path = make(tmp_path)
    with pytest.raises(DatasetError, match=said):
        _scan(path)
    config = quick_worlds.config(tmp_path, dataset={"path": str(path)})
    answer = CliRunner().invoke(app, ["inspect", str(config)])
    assert answer.exit_code == 2
    lines = [line for line in answer.stderr.splitlines() if not line.startswith("scan ")]
    (line,) = lines
    assert line.startswith("rag4dmc: ") and re.search(said, line)


def test_halves_of_a_row_in_two_tars_are_told_to_be_packed_together(tmp_path: Path) -> None:
    for name, data in (("a.png", PNG), ("a.txt", b"a caption")):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        (tmp_path / "d").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "d" / f"{name[2:]}.tar", "w") as tar:
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(DatasetError, match="each holds a half that the other lacks") as told:
        _scan(tmp_path / "d")
    assert "columns.id" not in str(told.value)
