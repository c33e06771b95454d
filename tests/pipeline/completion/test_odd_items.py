"""What the encoder can't take, or no file can hold, fails alone; the rest of the run goes on."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import Candidate, Dropped
from tests import quick_worlds
from tests.quick_parts import QuickCaptioner, QuickEncoder, QuickPainter

ODD_SIZE = (33, 32)
ODD_TEXT = "an odd red square"


class ChoosyEncoder(QuickEncoder):
    """Errs at pictures of one size and at one text, as some processors and tokenizers do."""

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        held = list(items)
        if any(item == ODD_TEXT or getattr(item, "size", None) == ODD_SIZE for item in held):
            raise RuntimeError(f"an odd {modality}")
        return super().encode(held, modality)


class DeadEncoder(QuickEncoder):
    """Errs at whatever it is asked."""

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        raise RuntimeError("nothing goes")


class OddCaptioner(QuickCaptioner):
    """Writes, of two rows, what the encoder can't take and what UTF-8 can't hold."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        made = super()._draw(request, seed, blank)
        odd = {"row 001": ODD_TEXT, "row 004": "a \ud800 square"}
        return replace(made, text=odd.get(request.row_id, made.text), notes=("a \udfff note",))


class OddPainter(QuickPainter):
    """Draws nothing at all for one row."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        made = super()._draw(request, seed, blank)
        return (
            replace(made, image=Image.new("RGB", (0, 4))) if request.row_id == "row 002" else made
        )


def _world(folder: Path, **changes: Any) -> Path:
    lacks = {0: None, 1: "text", 2: "image"}
    rows = [quick_worlds.row(number, lacks[number % 3]) for number in range(45)]
    buffer = io.BytesIO()
    Image.effect_noise(ODD_SIZE, 50).convert("RGB").save(buffer, "PNG")
    # Of the pairs, and of the rows that lack a half; two of each, for that is no reason to stop.
    for number in (12, 15, 13, 16):
        rows[number]["image"] = {"bytes": buffer.getvalue(), "path": None}
    for number in (18, 14):
        rows[number]["text"] = ODD_TEXT
    quick_worlds.write(folder / "data" / "a.parquet", rows)
    return quick_worlds.config(folder, **changes)


def _kind(part: type) -> dict[str, str]:
    return {"kind": f"{__name__}:{part.__name__}"}


@pytest.mark.parametrize("remember", [False, True])
def test_what_cannot_be_embedded_or_kept_fails_alone(tmp_path: Path, remember: bool) -> None:
    config = _world(
        tmp_path,
        encoder=_kind(ChoosyEncoder),
        captioner=_kind(OddCaptioner),
        image_generator=_kind(OddPainter),
        run={"shard_size": 8, "block_size": 4, "remember": remember},
    )
    job, summary = quick_worlds.run(config)
    assert summary["outcomes"] == {"observed": 15, "completed": 25, "rejected": 2, "failed": 3}
    rows = quick_worlds.completed(job)
    for number, half in ((13, "image"), (16, "image"), (14, "text")):
        row = rows[f"row {number:03d}"]
        assert row["status"] == "failed"
        assert f"the encoder can't take it: RuntimeError: an odd {half}" in row["reason"]
    assert "the encoder can't take it" in rows["row 001"]["reason"]
    assert "empty" in rows["row 002"]["reason"]
    assert rows["row 004"]["text"] == "a \ufffd square"
    chosen = rows["row 004"]["completion"]["candidates"][0]
    assert chosen["notes"][:2] == [
        "a \ufffd note",
        "characters that are none (lone surrogates) were replaced",
    ]
    held = job.knowledge.base.pairs["id"].to_pylist()
    assert len(held) == 12 and not {"row 012", "row 015", "row 018"} & set(held)
    # What was left out is no reason to end the next run either.
    _, again = quick_worlds.run(config)
    assert again["outcomes"] == summary["outcomes"]


def test_an_encoder_that_takes_nothing_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nothing goes"):
        quick_worlds.run(_world(tmp_path, encoder=_kind(DeadEncoder)))


class Half(QuickCaptioner):
    """Blanks at first, and an error beside the answer in the second attempt."""

    def generate(self, requests: Any) -> Any:
        answers = super().generate(requests)
        if any((c.text or "").strip() for answer in answers for c in answer.candidates):
            answers = [replace(answer, error="the other was lost") for answer in answers]
        return answers


def test_notes_of_an_attempt_stand_at_its_own_candidates(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(40, 1, 0))
    captioner = {**_kind(Half), "blank_attempts": 1, "same": True}
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, captioner=captioner))
    row = next(row for row in quick_worlds.completed(job).values() if row["missing"])
    told = [
        (c["attempt"], "others failed: the other was lost" in c["notes"])
        for c in row["completion"]["candidates"]
    ]
    assert told == [(1, False), (1, False), (2, True), (2, True)]


class Leaver(QuickCaptioner):
    """Shows none of its examples, for a reason that is no text of UTF-8."""

    def generate(self, requests: Any) -> Any:
        return [
            replace(
                answer,
                candidates=tuple(
                    replace(
                        one,
                        shown=(),
                        dropped=tuple(Dropped(e.id, "no \ud800 room") for e in request.examples),
                    )
                    for one in answer.candidates
                ),
            )
            for request, answer in zip(requests, super().generate(requests), strict=True)
        ]


def test_a_reason_for_a_left_out_example_that_is_no_utf8_ends_no_run(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(40, 1, 0))
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, captioner=_kind(Leaver)))
    done = [row for row in quick_worlds.completed(job).values() if row["missing"]]
    assert {row["status"] for row in done} == {"completed"}
    said = {one["reason"] for row in done for one in row["completion"]["dropped"]}
    assert "no \ufffd room" in said
