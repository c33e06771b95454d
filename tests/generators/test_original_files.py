"""Files of pictures that are sent as they are: every pixel of them, and nothing beside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from generators.original_files import bare_file
from tests import quick_worlds
from tests.generators.server import Server

SECRET = b"52.5200N 13.4050E"


def noise(size: tuple[int, int] = (96, 64), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def told_all(**options: Any) -> bytes:
    """A JPEG with all that cameras and programs write beside the pixels."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = noise(mode=options.pop("mode", "RGB"))
    made = file_of(
        image, "JPEG", exif=exif, icc_profile=profile, comment=SECRET, xmp=SECRET, **options
    )
    thumbnail = b"\xff\xe0" + (2 + 5 + len(SECRET)).to_bytes(2, "big") + b"JFXX\0" + SECRET
    return made[:2] + thumbnail + made[2:] + b"a film after the picture: " + SECRET


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"mode": "L"}, {"restart_marker_rows": 1}, {"quality": 100}],
    ids=str,
)
def test_a_jpeg_keeps_its_pixels_and_loses_all_else(options: dict[str, Any]) -> None:
    data = told_all(**options)
    found = bare_file(data, (96, 64))
    assert found is not None and found[1] == "image/jpeg"
    assert SECRET in data and SECRET not in found[0] and b"ICC_PROFILE" not in found[0]
    first, second = (Image.open(io.BytesIO(one)) for one in (data, found[0]))
    assert first.tobytes() == second.tobytes()
    assert set(second.info) <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "progressive",
        "progression",
    }


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_png_keeps_its_pixels_and_loses_all_else(mode: str) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("GPS", SECRET.decode())
    image = noise(mode=mode)
    data = file_of(image, "PNG", pnginfo=texts, dpi=(72, 72)) + SECRET
    found = bare_file(data, image.size)
    assert found is not None and found[1] == "image/png"
    assert SECRET in data and SECRET not in found[0]
    again = Image.open(io.BytesIO(found[0]))
    assert again.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    assert not again.info


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(noise(), "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        _turned(),
        file_of(noise(mode="CMYK"), "JPEG"),
        file_of(noise(mode="RGBA"), "PNG"),
        file_of(noise(mode="P"), "PNG", transparency=0),
        file_of(Image.fromarray(np.zeros((64, 96), np.uint16)), "PNG"),
        file_of(noise(), "PNG", save_all=True, append_images=[noise(mode="L").convert("RGB")]),
        file_of(noise(), "WEBP"),
        file_of(noise(), "GIF"),
        file_of(noise(), "PNG")[:-20],
        file_of(noise(), "JPEG")[:-2],
        file_of(noise((64, 96)), "JPEG"),
        b"no picture",
    ],
    ids=[
        *("turned", "cmyk", "transparent", "transparent palette", "16 bits", "animated", "webp"),
        *("gif", "cut png", "cut jpeg", "another size", "no picture"),
    ],
)
def test_what_would_be_another_picture_to_the_server_is_encoded_anew(data: bytes) -> None:
    assert bare_file(data, (96, 64)) is None


def sent(server: Server) -> list[bytes]:
    """The pictures of all requests."""
    turns = [
        turn for seen in server.seen for turn in seen.fields["messages"] if turn["role"] == "user"
    ]
    addresses = [turn["content"][0]["image_url"]["url"] for turn in turns]
    return [base64.b64decode(address.partition(",")[2]) for address in addresses]


@pytest.mark.parametrize(
    ("settings", "as_they_are"),
    [
        ({}, True),
        ({"original_bytes": 0}, False),
        ({"longest_side": 64}, False),
        ({"lossless": True}, False),
    ],
    ids=str,
)
def test_a_run_sends_the_files_of_rows_and_examples_where_they_may_go(
    settings: dict[str, Any], as_they_are: bool, tmp_path: Path
) -> None:
    rows = quick_worlds.rows(12, 2, 0)
    files = {}
    for number, row in enumerate(rows):
        image = Image.fromarray(np.roll(np.asarray(noise()), number, axis=1))
        exif = Image.Exif()
        exif[0x010E] = SECRET.decode()
        data = file_of(image, "JPEG", exif=exif, quality=80 + number)
        row["image"] = {"bytes": data, "path": None}
        found = bare_file(data, image.size)
        assert found is not None
        files[found[0]] = row["id"]
    quick_worlds.write(tmp_path / "data" / "a.parquet", rows)
    with Server() as server:
        captioner = server.settings(kind="openai") | settings
        _, summary = quick_worlds.run(quick_worlds.config(tmp_path, captioner=captioner))
        pictures = sent(server)
    assert summary["outcomes"]["completed"] == 2
    # Each of four requests shows an example and the row.
    assert len(pictures) == 8
    assert all((one in files) is as_they_are for one in pictures)
    assert not any(SECRET in one for one in pictures)


def test_a_picture_that_is_not_at_hand_as_a_file_is_encoded(
    server: Server, ask: Callable[..., Any]
) -> None:
    from tests.generators.server import captioner

    (answer,) = captioner(server).generate([ask(1)])
    assert answer.error is None
    assert Image.open(io.BytesIO(sent(server)[0])).format == "JPEG"
