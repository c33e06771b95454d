"""What is said of a half follows from its figures and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.check.figures import figures, told, verdict
from pipeline.config.run import RunSettings


def rows(own: float, example: float | None, random: float, count: int = 40) -> list[dict[str, Any]]:
    """Checked pairs about these similarities."""
    spread = np.random.default_rng(0).normal(0, 0.03, (count, 3))
    return [
        {
            "id": str(number),
            "status": "completed",
            "text": "a cat",
            "check": {
                "chosen": own + a,
                "example": None if example is None else example + b,
                "random": random + c,
                "middle": random + c,
            },
        }
        for number, (a, b, c) in enumerate(spread.tolist())
    ]


def found(*values: float | None, **options: Any) -> dict[str, Any]:
    return figures(rows(*values, **options), "image", {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((0.7, 0.5, 0.3), "they pay"),
        ((0.5, 0.7, 0.3), "leave them out or take the example itself"),
        ((0.5, 0.5, 0.3), "not shown to pay"),
        ((0.3, 0.3, 0.3), "no better than random, leave them out"),
        ((0.7, None, 0.3), "no example to compare with): keep them"),
    ],
)
def test_a_verdict_follows_from_the_gain(values: tuple[float | None, ...], says: str) -> None:
    assert says in verdict("image", found(*values))


def test_the_way_is_that_from_random_to_the_truth() -> None:
    assert found(0.65, 0.5, 0.3)["way"]["mean"] == pytest.approx(0.5, abs=0.03)
    assert found(0.3, 0.5, 0.3)["way"]["mean"] == pytest.approx(0, abs=0.03)


def test_few_pairs_have_no_figures_but_a_reason() -> None:
    few = found(0.7, 0.5, 0.3, count=19)
    assert "similarity" not in few and "fewer than 20 tell nothing" in told("image", few)
    assert "not known" in verdict("image", few)


def test_rows_that_have_no_half_are_counted_and_not_measured() -> None:
    lost = rows(0.7, 0.5, 0.3)
    for row in lost[:10]:
        row["check"]["chosen"] = None
    summed = figures(lost, "image", {})
    assert (summed["checked"], summed["generated"]) == (40, 30)


@pytest.mark.parametrize(
    ("check", "lacking", "pairs"),
    [("auto", 499, 0), ("auto", 500, 20), ("auto", 2500, 100), ("auto", 10**6, 200), (7, 10, 7)],
)
def test_a_check_costs_less_than_a_twentieth_of_its_run(
    check: Any, lacking: int, pairs: int
) -> None:
    assert RunSettings(check=check).checked(lacking) == pairs
    assert check != "auto" or pairs < lacking / 20
