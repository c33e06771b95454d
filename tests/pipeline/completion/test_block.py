"""What a block asks of the encoder, and what it holds of pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import Generated, Needs
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.quick_parts import COLOURS, QuickCaptioner, QuickEncoder, _Settings, picture

COMPLETE, LACKING = 40, 64
SIDE = 100


class SmallSettings(_Settings):
    def needs(self) -> Needs:
        return Needs(side=SIDE)


class SmallCaptioner(QuickCaptioner):
    """Has no use for pictures of more than `SIDE` pixels, and notes the sizes of those it gets."""

    Settings = SmallSettings
    sizes: list[tuple[int, int]] = []  # noqa: RUF012  of all that there are

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        for request in requests:
            pictures = [request.image, *(example.image for example in request.examples)]
            self.sizes += [one.size for one in pictures]
        return super().generate(requests)


def dataset(folder: Path, size: tuple[int, int], lacks: str) -> None:
    """Rows with two captions each, as JSON Lines beside JPEGs."""
    folder.mkdir()
    lines = []
    for n in range(COMPLETE + LACKING):
        colour = list(COLOURS)[n % len(COLOURS)]
        row: dict[str, Any] = {"id": f"row {n:03d}"}
        whole = n < COMPLETE
        if whole or lacks != "image":
            picture(colour, n).resize(size).save(folder / f"{n:03d}.jpg", quality=90)
            row["image"] = f"{n:03d}.jpg"
        if whole or lacks != "text":
            row["text"] = [f"a {colour} square, number {n}", f"one {colour} thing {n}"]
        lines.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("lacks", ["text", "image"])
def test_a_block_asks_the_encoder_once_for_each_kind_of_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    dataset(tmp_path / "data", (32, 32), lacks)
    changes = {
        "run": {"shard_size": 64, "block_size": 32},
        "generation": {"n": 4},
        "knowledge_base": {
            "mapping": {"method": "start"},
            "device": "cpu",
            "retrieval": {"examples": 3, "k": 10, "alpha": 0.5},
        },
    }
    job = Job(load_config(quick_worlds.config(tmp_path, **changes)))
    asked: list[str] = []
    encode = QuickEncoder.encode

    def counting(self: QuickEncoder, items: Any, modality: str) -> np.ndarray:
        asked.append(modality)
        return encode(self, items, modality)

    with job.lock():
        job.begin()
        job.build()
        monkeypatch.setattr(QuickEncoder, "encode", counting)
        job.complete()
    rows = quick_worlds.completed(job).values()
    made = [row for row in rows if row["status"] == "completed"]
    assert len(made) == LACKING
    assert all(len(row["completion"]["candidates"]) == 4 for row in made)
    # Two blocks: the rows' own halves, the captions of their pairs, the candidates.
    assert len(asked) == 2 * 3


def test_a_block_holds_pictures_at_the_size_that_its_generator_needs(tmp_path: Path) -> None:
    dataset(tmp_path / "data", (640, 480), "text")
    captioner = {"kind": f"{__name__}:SmallCaptioner"}
    changes = {"run": {"shard_size": 64, "block_size": 32}, "captioner": captioner}
    SmallCaptioner.sizes.clear()
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, **changes))
    rows = [row for row in quick_worlds.completed(job).values() if row["missing"] == "text"]
    assert [row["status"] for row in rows] == ["completed"] * LACKING
    assert set(SmallCaptioner.sizes) == {(SIDE, 75)}
    assert len(SmallCaptioner.sizes) >= 2 * LACKING
    # What was observed stays as it was.
    seen = Image.open(io.BytesIO(rows[0]["image"]["bytes"]))
    assert seen.size == (640, 480)
