"""Answers and errors of parts of one's own that come of one row, whatever they are: that row fails alone."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import Candidate
from pipeline.dataset.decoding import MAX_PIXELS
from tests import quick_worlds
from tests.quick_parts import QuickCaptioner, QuickEncoder, QuickPainter

ODD_TEXT = "an odd red square"


class Mute(Exception):
    """Can't say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _err(style: str) -> None:
    if style == "mute":
        raise Mute
    if style == "unknown file":
        Image.open(io.BytesIO(b"no picture"))
    if style == "mode":
        Image.new("RGBA", (3, 3)).save(io.BytesIO(), "JPEG")


class Odd(QuickEncoder):
    """Errs at one text and at pictures of one width, or gives complex numbers for them."""

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        held = list(items)
        found = super().encode(held, modality)
        if any(item == ODD_TEXT or getattr(item, "width", 0) == 33 for item in held):
            _err(self.settings.style)
            return found * (1 + 1j)
        return found


class OddCaptioner(QuickCaptioner):
    """Errs at one row."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        if request.row_id == "row 001":
            _err(self.settings.style)
        return super()._draw(request, seed, blank)


class Vast(QuickPainter):
    """Draws, for one row, more than is read back of a file."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        made = super()._draw(request, seed, blank)
        image = Image.new("L", (MAX_PIXELS // 1000, 1001)) if request.row_id == "row 002" else None
        return replace(made, image=image or made.image)


def _world(folder: Path, odd: bool = False, **changes: Any) -> Path:
    lacks = {0: None, 1: "text", 2: "image"}
    rows = [quick_worlds.row(number, lacks[number % 3]) for number in range(45)]
    if odd:
        buffer = io.BytesIO()
        Image.effect_noise((33, 32), 50).convert("RGB").save(buffer, "PNG")
        for number in (12, 13):
            rows[number]["image"] = {"bytes": buffer.getvalue(), "path": None}
        for number in (18, 14):
            rows[number]["text"] = ODD_TEXT
    quick_worlds.write(folder / "data" / "a.parquet", rows)
    return quick_worlds.config(folder, **changes)


def _failed(job: Any) -> dict[str, str]:
    found = quick_worlds.completed(job).items()
    return {row_id: row["reason"] for row_id, row in found if row["status"] == "failed"}


@pytest.mark.parametrize(
    ("style", "told"),
    [
        ("mute", "Mute: no message"),
        ("unknown file", "UnidentifiedImageError: cannot identify image file"),
        ("mode", "OSError: cannot write mode RGBA as JPEG"),
        ("complex", "as an array of numbers"),
    ],
)
def test_what_the_encoder_makes_of_one_item_fails_it_alone(
    tmp_path: Path, style: str, told: str
) -> None:
    encoder = {"kind": f"{__name__}:Odd", "style": style}
    job, _ = quick_worlds.run(_world(tmp_path, odd=True, encoder=encoder))
    failed = _failed(job)
    assert set(failed) == {"row 013", "row 014"}
    assert all("the encoder can't take it" in why and told in why for why in failed.values())
    assert len(job.knowledge.base.pairs) == 13


@pytest.mark.parametrize(
    ("style", "told"),
    [
        ("mute", "raised Mute: no message"),
        ("unknown file", "raised UnidentifiedImageError: cannot identify image file"),
        ("mode", "raised OSError: cannot write mode RGBA as JPEG"),
    ],
)
def test_what_a_generator_raises_of_one_row_fails_it_alone(
    tmp_path: Path, style: str, told: str
) -> None:
    captioner = {"kind": f"{__name__}:OddCaptioner", "style": style}
    job, _ = quick_worlds.run(_world(tmp_path, captioner=captioner))
    failed = _failed(job)
    assert set(failed) == {"row 001"} and told in failed["row 001"]


def test_a_picture_larger_than_is_read_fails_its_row_alone(tmp_path: Path) -> None:
    job, _ = quick_worlds.run(_world(tmp_path, image_generator={"kind": f"{__name__}:Vast"}))
    failed = _failed(job)
    assert set(failed) == {"row 002"} and "100,000 x 1,001 pixels" in failed["row 002"]


class NoSpace(QuickEncoder):
    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        raise OSError(28, "No space left on device")


def test_an_error_that_the_system_numbers_is_no_items(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        quick_worlds.run(_world(tmp_path, encoder={"kind": f"{__name__}:NoSpace"}))
