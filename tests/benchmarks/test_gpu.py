"""The script that whoever has a GPU runs: whole at toy size, and no part ends the others."""

from __future__ import annotations

import pytest

from tests.benchmarks import gpu


@pytest.mark.slow
def test_every_part_gives_its_figures_at_toy_size() -> None:
    found = gpu.measure(small=True, budgets=dict.fromkeys(gpu.BUDGETS, 600))
    assert [one for one in found if one["value"] is None] == []
    assert {one["part"] for one in found} == set(gpu.PARTS)
    assert all(one["value"] > 0 for one in found)
    told = gpu.table(found)
    assert "| captions | bare loop |" in told and "| images | most memory |" in told


def test_a_part_that_takes_too_long_or_fails_is_told_of_and_the_others_go_on() -> None:
    found = gpu.measure(small=True, budgets={"captions": 0, "no such part": 60})
    assert [(one["part"], one["value"]) for one in found] == [
        ("captions", None),
        ("no such part", None),
    ]
    assert found[0]["unit"] == "not done within 0 s"
    assert "invalid choice" in found[1]["unit"]
    assert gpu.table(found).count("| failed |") == 2


def test_the_whole_takes_at_most_eight_minutes() -> None:
    assert set(gpu.BUDGETS) == set(gpu.PARTS)
    assert sum(gpu.BUDGETS.values()) <= 480
