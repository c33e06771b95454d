"""Captions within the files of pictures are told before others are generated, also of known pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.described import describes_itself
from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, write_jsonl

CAPTION = "A harbour at dusk, with two boats"
_RDF = "<x:xmpmeta><rdf:RDF><dc:description><rdf:Alt><rdf:li xml:lang='x-default'>{}</rdf:li></rdf:Alt>"


def jpeg(**options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(tag: int, value: str | bytes) -> bytes:
    told = Image.Exif()
    told[tag] = value
    return jpeg(exif=told)


def png(name: str, text: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(name, text)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def iptc(caption: str) -> bytes:
    """A JPEG with a caption in the block of Photoshop's that holds IPTC's records."""
    told = caption.encode()
    record = b"\x1c\x02\x78" + len(told).to_bytes(2, "big") + told
    record += b"\0" * (len(record) % 2)
    block = b"8BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    body = b"Photoshop 3.0\0" + block
    plain = jpeg()
    return plain[:2] + b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body + plain[2:]


def test_captions_are_found_wherever_programs_write_them() -> None:
    for data in (
        exif(ExifTags.Base.ImageDescription, CAPTION),
        exif(ExifTags.Base.XPTitle, CAPTION.encode("utf-16-le")),
        iptc(CAPTION),
        jpeg(xmp=_RDF.format(CAPTION).encode()),
        png("Description", CAPTION),
        png("XML:com.adobe.xmp", _RDF.format(CAPTION)),
    ):
        assert describes_itself(data)


@pytest.mark.parametrize(
    "text", ["OLYMPUS DIGITAL CAMERA", "Created with GIMP", "Screenshot", "", "DCIM\\100", "12 34"]
)
def test_what_cameras_and_programs_write_is_no_caption(text: str) -> None:
    assert not describes_itself(exif(ExifTags.Base.ImageDescription, text or " "))
    assert not describes_itself(png("Comment", text))


def test_pictures_without_anything_or_cut_off_tell_nothing() -> None:
    whole = exif(ExifTags.Base.ImageDescription, CAPTION)
    assert not any(map(describes_itself, (PNG, jpeg(), whole[:30], b"no image")))


def test_rows_without_a_text_whose_picture_has_one_are_counted_in_every_scan(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        told = CAPTION if number < 3 else "SONY DSC"
        (data / f"{number}.jpg").write_bytes(exif(ExifTags.Base.ImageDescription, told))
    rows = [{"id": n, "image": f"{n}.jpg", "text": "a hat" if n == 0 else None} for n in range(4)]
    for once in range(3):
        write_jsonl(data / "rows.jsonl", [*rows, {"id": f"new {once}", "text": json.dumps(once)}])
        (line,) = overlooked(Catalog.scan(open_dataset(data), tmp_path / "found"))
        assert line.startswith("pictures without a text whose own files tell what may be one, in")
        assert ": 2; that is not read" in line
