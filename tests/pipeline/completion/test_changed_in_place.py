"""Classes of one's own may do what they like with what they are handed: no other row, and no record, sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.completion.careless import Careful
from tests.pipeline.completion.grounded import complete, recorded, world

HERE = "tests.pipeline.completion.careless"
SECTIONS = {"text": ("captioner", "Captioner"), "image": ("image_generator", "Painter")}


def _run(folder: Path, half: str, who: str) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """What the generator received, and what was made and recorded."""
    section, name = SECTIONS[half]
    Careful.received.clear()
    changes: dict[str, Any] = {
        section: {"kind": f"{HERE}:{who}{name}"},
        "encoder": {"kind": f"{HERE}:{who}Encoder"},
        # Each round hands over the same pictures again.
        "generation": {"n": {"least": 2, "most": 3}, "attempts": 1, "ungrounded": {half: 0.5}},
    }
    rows = complete(world(folder / who, half, **changes), half)
    recorded(rows)
    kept = ("examples", "dropped", "candidates", "chosen")
    made = [[row["completion"][name] for name in kept] for row in rows]
    halves = [(row["id"], row["text"], row["image"]) for row in rows]
    return list(Careful.received), [*zip(halves, made, strict=True)]


@pytest.mark.parametrize("half", ["text", "image"])
def test_what_is_changed_in_place_reaches_no_other_row(tmp_path: Path, half: str) -> None:
    received, made = _run(tmp_path, half, "Careful")
    assert any(picture for _, _, examples, *_ in received for *_, picture in examples)
    assert _run(tmp_path, half, "Careless") == (received, made)


def test_a_list_that_is_sorted_in_place_gives_no_row_the_half_of_another(tmp_path: Path) -> None:
    texts = []
    for kind in (f"{HERE}:Sorter", "tests.quick_parts:QuickCaptioner"):
        job = world(tmp_path / str(len(texts)), "text", captioner={"kind": kind})
        texts.append([(row["id"], row["text"]) for row in complete(job, "text")])
    assert texts[0] == texts[1]
