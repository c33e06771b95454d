"""Pictures on their way to a server: once each, small, and without what is not to be seen."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import CaptionRequest
from generators.openai_captions import OpenAICaptionSettings
from generators.sent_pictures import Pictures
from tests.generators.server import Server, captioner


def pictures_of(**settings: Any) -> Pictures:
    values = {"base_url": "http://localhost/v1", "model": "m", "send_data": True} | settings
    return Pictures(OpenAICaptionSettings(**values))


def test_a_picture_is_encoded_once_for_all_that_it_is_sent_with(
    server: Server,
    ask: Callable[..., CaptionRequest],
    examples: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[str] = []
    save = Image.Image.save
    asked = captioner(server)

    def counting(image: Image.Image, file: Any, format: str, **options: Any) -> None:
        encoded.append(format)
        save(image, file, format, **options)

    monkeypatch.setattr(Image.Image, "save", counting)
    pairs = examples(2)
    rows = [ask(1, 2, 3, 4, row=f"row-{n}", examples=pairs) for n in range(3)]
    assert all(answer.error is None for answer in asked.generate(rows))
    assert len(server.seen) == 12
    # Two threads may start on one example at the same time.
    assert 5 <= len(encoded) <= 5 + 2 * 2
    assert set(encoded) == {"JPEG"}


@pytest.mark.parametrize(("lossless", "format"), [(True, "PNG"), (False, "JPEG")])
def test_pictures_are_jpeg_unless_nothing_may_be_lost(
    lossless: bool, format: str, pictures: Callable[..., Image.Image]
) -> None:
    image = pictures(3, (300, 200))
    sent = pictures_of(lossless=lossless, longest_side=150).encoded(image)
    found = Image.open(io.BytesIO(sent.content))
    assert (found.format, found.size) == (format, (150, 100))
    assert sent.media_type == f"image/{format.lower()}"
    away = np.abs(np.asarray(found, int) - np.asarray(image.resize((150, 100)), int)).mean()
    assert away < 6


def test_what_is_transparent_is_sent_on_the_ground() -> None:
    hole = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    found = Image.open(io.BytesIO(pictures_of().encoded(hole).content))
    assert np.asarray(found).min() > 250


def test_a_picture_that_cannot_be_sent_fails_its_row_alone(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    broken = Image.open(io.BytesIO(_cut()))
    rows = [CaptionRequest("broken", broken, (), (1,)), ask(2, row="sound")]
    bad, good = captioner(server).generate(rows)
    assert bad.error is not None and bad.error.startswith("its pictures can't be sent: ")
    assert [one.text for one in good.candidates] == ["caption 2"]


def _cut() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "PNG")
    return buffer.getvalue()[:800]
