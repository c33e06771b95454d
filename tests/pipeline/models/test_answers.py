"""Generators of one's own that answer what they must not: it fails that row, by name, and no other."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from generators.base import Candidate, CaptionRequest, Dropped, Example, Generated
from pipeline.dataset.images import decode
from pipeline.models.answers import Answers
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.quick_parts import QuickCaptioner, QuickPainter


def _each(**changes: Any) -> Callable[[Generated], Any]:
    return lambda answer: replace(
        answer, candidates=tuple(replace(one, **changes) for one in answer.candidates)
    )


def _all(candidates: Callable[[tuple[Candidate, ...]], Any]) -> Callable[[Generated], Any]:
    return lambda answer: replace(answer, candidates=candidates(answer.candidates))


def _raised(answer: Generated) -> Any:
    raise KeyError("no such colour")


# What a captioner answers for one row, and what is said of that row.
STRANGE: dict[str, tuple[Callable[[Generated], Any], str]] = {
    "a foreign seed": (_each(seed=7), "gave a candidate with the seed 7, which was not asked for"),
    "no seed": (_each(seed=None), "gave a candidate with the seed None, which was not asked for"),
    "a seed that is a text": (
        _each(seed="7"),
        "gave a candidate with the seed '7', which was not asked for",
    ),
    "no candidates": (_all(lambda made: ()), "gave 0 candidates for 2 seeds, and no error"),
    "candidates that are none": (_all(lambda made: (None,)), "gave None for a candidate"),
    "a number for candidates": (_all(lambda made: 3), "gave Generated for a candidate"),
    "a number for a text": (_each(text=3), "gave int for a text"),
    "bytes for a text": (_each(text=b"a hat"), "gave bytes for a text"),
    "a picture too": (_each(image=Image.new("RGB", (4, 4))), "gave Image beside the text"),
    "a text without an end": (
        _each(text="hat " * 30_000),
        "gave a text of 120,000 characters; 100,000 are the most",
    ),
    "no prompt": (_each(prompt=None), "gave a candidate whose prompt is None, no text"),
    "a text for notes": (
        _each(notes="a note"),
        "gave a candidate whose notes are no tuple of texts",
    ),
    "a number for a revision": (_each(revision=3), "gave a candidate whose revision is int"),
    "an unheard-of example": (
        _each(shown=("x",)),
        "gave a candidate that says that it was shown example 'x'",
    ),
    "a left-out example": (
        _each(dropped=(Dropped("x", "?"),)),
        "gave a candidate that says that it left out",
    ),
    "an id for a left-out example": (_each(dropped=("row 001",)), "gave str for a dropped example"),
    "no answer": (lambda answer: None, "must answer with Generated; got None"),
    "another row's answer": (
        lambda a: replace(a, row_id="x"),
        "must answer each request once and in order",
    ),
    "an error": (_raised, "raised KeyError: 'no such colour'"),
}


WAYS = {f"row {4 * number:03d}": way for number, way in enumerate(STRANGE)}


class Strange(QuickCaptioner):
    """Answers each of the first rows that lack a text in a way of its own."""

    def generate(self, requests: Sequence[Any]) -> Any:
        return [
            STRANGE[WAYS[answer.row_id]][0](answer) if answer.row_id in WAYS else answer
            for answer in super().generate(requests)
        ]


def _part(cls: type) -> dict[str, Any]:
    return {"kind": f"{__name__}:{cls.__name__}"}


def _rows(lacking: str, count: int = 44) -> list[dict[str, Any]]:
    return [quick_worlds.row(n, lacking if n % 4 == 0 else None) for n in range(count)]


def _config(folder: Path, remember: bool = False, **changes: Any) -> Path:
    run = {"shard_size": 64, "block_size": 4, "remember": remember}
    return quick_worlds.config(folder, run=run, **changes)


@pytest.mark.parametrize("remember", [False, True])
def test_what_is_no_answer_fails_its_row_alone(tmp_path: Path, remember: bool) -> None:
    count = 4 * len(WAYS) + 12
    quick_worlds.write(tmp_path / "data" / "a.parquet", _rows("text", count)[::-1])
    job, summary = quick_worlds.run(_config(tmp_path, remember, captioner=_part(Strange)))
    assert summary["outcomes"]["completed"] == 3 and summary["outcomes"]["failed"] == len(WAYS)
    rows = quick_worlds.completed(job)
    for row_id, way in WAYS.items():
        assert rows[row_id]["status"] == "failed"
        assert f"the captioner {STRANGE[way][1]}" in rows[row_id]["reason"]


class Always:
    """Answers all rows in one way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def generate(self, requests: Sequence[Any]) -> Any:
        made = [
            Generated(r.row_id, tuple(Candidate(seed, "", text="a hat") for seed in r.seeds))
            for r in requests
        ]
        return None if self.way == "nothing" else [STRANGE[self.way][0](one) for one in made]


@pytest.mark.parametrize("way", [*STRANGE, "nothing"])
def test_a_class_none_of_whose_answers_is_one_ends_the_run_by_name(way: str) -> None:
    asked = [CaptionRequest(name, Image.new("RGB", (4, 4)), (), (1, 2)) for name in ("a", "b")]
    raised = way == "an error"
    told = "no such colour" if raised else f"^captioner: {STRANGE.get(way, ('', 'must'))[1][:9]}"
    with pytest.raises(KeyError if raised else ConfigError, match=told):
        Answers(Always(way), "captioner").generate(asked)
    with pytest.raises(KeyError if raised else ConfigError, match=told):
        Answers(Always(way), "captioner").generate(asked[:1])


class Miscounting(QuickCaptioner):
    """One candidate too few for one row, one seed twice for another, and backwards, in NumPy's numbers."""

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        changed = []
        for answer in super().generate(requests):
            first, second = answer.candidates
            by_row = {"row 004": (first,), "row 008": (first, replace(second, seed=first.seed))}
            made = by_row.get(answer.row_id, (second, replace(first, seed=np.int64(first.seed))))
            changed.append(replace(answer, candidates=made))
        return changed


@pytest.mark.parametrize("remember", [False, True])
def test_what_is_sound_of_an_answer_is_taken(tmp_path: Path, remember: bool) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", _rows("text"))
    config = _config(tmp_path, remember, captioner=_part(Miscounting))
    job, summary = quick_worlds.run(config)
    assert summary["outcomes"]["completed"] == 11
    rows = quick_worlds.completed(job)
    for number, why in ((4, "gave 1 candidates for 2 seeds"), (8, "two candidates with the seed")):
        (candidate,) = rows[f"row {number:03d}"]["completion"]["candidates"]
        assert any(why in note for note in candidate["notes"])
    # In the order of the seeds, as those are that come from a memory.
    plain = quick_worlds.config(tmp_path / "plain", dataset={"path": str(tmp_path / "data")})
    other = quick_worlds.completed(quick_worlds.run(plain)[0])
    drawn = [
        [c["text"] for c in one["row 012"]["completion"]["candidates"]] for one in (rows, other)
    ]
    assert drawn[0] == drawn[1]


def _cut_off() -> Image.Image:
    """A picture that was opened, and can't be read to its end."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:900]))


PICTURES: dict[str, tuple[Callable[[], Any], str]] = {
    "row 000": (lambda: np.zeros((8, 8, 3), np.uint8), "gave ndarray for a picture"),
    "row 004": (lambda: b"png", "gave bytes for a picture"),
    "row 008": (_cut_off, "gave a picture whose reading raised OSError"),
}
MODES = dict(
    zip(
        (f"row {4 * number:03d}" for number in range(3, 14)),
        ["L", "LA", "P", "CMYK", "I;16", "I", "F", "1", "RGBA", "YCbCr", "LAB"],
        strict=True,
    )
)


class StrangePainter(QuickPainter):
    """Draws, for some rows, no pictures, and for others such of another mode."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        made = super()._draw(request, seed, blank)
        if request.row_id in PICTURES:
            return replace(made, image=PICTURES[request.row_id][0]())
        mode = MODES.get(request.row_id)
        return made if mode is None else replace(made, image=_in_mode(made.image, mode))


def _in_mode(image: Any, mode: str) -> Any:
    if mode == "LAB":
        space = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*space))  # type: ignore[arg-type]
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    if mode == "RGBA":
        image.putalpha(128)
        return image
    return image.convert(mode)


def test_what_is_no_picture_fails_alone_and_any_mode_is_kept_the_same_by_a_memory(
    tmp_path: Path,
) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", _rows("image", 64)[::-1])
    kept: list[Any] = []
    for name in ("without", "with", "with"):
        # Chosen anew: the third run answers from the memory.
        config = _config(
            tmp_path / name,
            name == "with",
            dataset={"path": str(tmp_path / "data")},
            image_generator=_part(StrangePainter),
            selection={"image": {"lambda1": 1.0 if len(kept) < 2 else 0.9}},
        )
        job, summary = quick_worlds.run(config)
        assert summary["outcomes"]["failed"] == 3 and summary["outcomes"]["completed"] == 13
        rows = quick_worlds.completed(job)
        for row_id, (_, why) in PICTURES.items():
            assert why in rows[row_id]["reason"]
        kept.append({i: (rows[i]["image"], _notes(rows[i])) for i in MODES})
        for row_id, mode in MODES.items():
            data = rows[row_id]["image"]["bytes"]
            assert decode(data).size == (32, 32)
            assert (Image.open(io.BytesIO(data)).mode == "RGBA") == (mode == "RGBA")
            assert ("came in mode" in _notes(rows[row_id])) == (mode != "RGBA")
    assert kept[0] == kept[1] == kept[2]


def _notes(row: dict[str, Any]) -> str:
    return " ".join(note for one in row["completion"]["candidates"] for note in one["notes"])


@pytest.mark.parametrize(("shown", "dropped"), [("a", "a"), ("aa", ""), ("", "aa")])
def test_an_example_is_shown_or_left_out_once(shown: str, dropped: str) -> None:
    class Twice(Always):
        def generate(self, requests: Sequence[Any]) -> Any:
            left = tuple(Dropped(name, "?") for name in dropped)
            made = Candidate(1, "", text="a hat", shown=tuple(shown), dropped=left)
            return [Generated(one.row_id, (made,)) for one in requests]

    asked = CaptionRequest("row", Image.new("RGB", (4, 4)), (Example("a", "a cat"),), (1,))
    with pytest.raises(ConfigError, match="captioner: gave a candidate that tells twice of .* 'a'"):
        Answers(Twice(""), "captioner").generate([asked])
