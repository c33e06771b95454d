"""Rows of which little is expected are looked at again, by other examples, and what arrives says so."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generators.base import Needs, derive_seed
from pipeline.advice.estimate import estimate
from pipeline.check.intervals import paired
from pipeline.completion.confidence import EVIDENCE, Calibration
from pipeline.config.config import load_config, make_config
from pipeline.config.generation import GenerationSettings
from pipeline.export.checked import checked as card
from pipeline.job import Job
from pipeline.ledger.summary import told
from pipeline.report.run import report_run
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.check.checked import PAIRS, checked
from tests.pipeline.check.doubted import LOOK, DoubtingCaptioner, N, world

HALVES = ("text", "image")
PAINTER = {"image_generator": {"kind": "tests.quick_parts:QuickPainter"}}


def made(path: Path, half: str) -> dict[str, dict[str, Any]]:
    rows = quick_worlds.completed(Job(load_config(path)))
    return {row_id: row for row_id, row in rows.items() if row["missing"] == half}


def looks(row: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The candidates of a row's first look, and of its second."""
    own = row["completion"]["candidates"]
    return [one for one in own if not one["second_look"]], [
        one for one in own if one["second_look"]
    ]


def shown(candidates: list[dict[str, Any]]) -> set[str]:
    return {example for one in candidates for example in one["examples"]}


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = world(tmp_path_factory.mktemp("looked"), **PAINTER)
    return path, quick_worlds.run(path)[1]


@pytest.mark.parametrize("half", HALVES)
def test_rows_below_are_drawn_for_again_from_other_examples_and_the_better_stays(
    looked: tuple[Path, dict[str, Any]], half: str
) -> None:
    again = 0
    for row_id, row in made(looked[0], half).items():
        found = row["completion"]
        first, second = looks(row)
        assert row["status"] == "completed" and len(first) == N
        assert len(second) in (0, N)
        seeds = [one["seed"] for one in found["candidates"]]
        assert seeds == [derive_seed(0, row_id, n, 1) for n in range(len(seeds))]
        assert {one["attempt"] for one in found["candidates"]} == {1}
        valid = [one["score"] for one in found["candidates"] if one["valid"]]
        kept = found["candidates"][found["chosen"]]
        assert kept["score"] == max(valid) == found["score"]
        assert found["second_look"] is kept["second_look"]
        # What is recorded as having grounded the half is what the kept candidate was shown.
        assert [one["id"] for one in found["examples"]] == kept["examples"]
        if second:
            again += 1
            assert all(len(one["examples"]) == LOOK["examples"] for one in second)
            assert not shown(first) & shown(second)
    assert again > 0 if half == "image" else 0 < again < 20


def test_who_gets_a_second_look_is_told_by_what_is_expected_after_the_first(
    looked: tuple[Path, dict[str, Any]],
) -> None:
    path, _ = looked
    held = json.loads((path.parent / "runs/quick/check/text/figures.json").read_text())["learned"]
    looking = Calibration.parse(held["looking"])
    assert looking.rows == PAIRS and held["looking"] != held["calibration"]
    sides = set()
    for row in made(path, "text").values():
        first, second = looks(row)
        best = max((one for one in first if one["valid"]), key=lambda one: one["score"])
        others = [one["score"] for one in first if one["valid"] and one is not best]
        known = {name: best.get(name) for name in EVIDENCE}
        known |= {"margin": best["score"] - max(others) if others else np.nan}
        # Of a row that was looked at again the examples of the first look are not recorded.
        if row["completion"]["examples"] and not second:
            known["example"] = row["completion"]["examples"][0]["score"]
        evidence = np.array([[known[name] for name in EVIDENCE]], np.float64)
        [expected] = looking.expected(looking.index(evidence))
        sides.add(bool(second))
        if np.isfinite(evidence).all():
            assert bool(second) is bool(expected < LOOK["below"])
    assert sides == {True, False}


@pytest.mark.parametrize("half", HALVES)
def test_every_checked_pair_is_looked_at_twice_by_nothing_that_tells_of_it(
    looked: tuple[Path, dict[str, Any]], half: str
) -> None:
    pairs = checked(looked[0], half)
    assert len(pairs) == PAIRS
    for row_id, pair in pairs.items():
        first, second = looks(pair)
        assert len(first) == N and len(second) == N and len(pair["check"]["looks"]) == 2
        assert not shown(first) & shown(second)
        telling = {row_id, f"twin of {row_id}", row_id.removeprefix("twin of ")}
        assert not telling & (shown(first) | shown(second))


def test_the_gain_of_those_pairs_is_told_wherever_the_check_is(
    looked: tuple[Path, dict[str, Any]],
) -> None:
    path, summary = looked
    found = summary["check"]["text"]
    said = found["second_look"]
    assert (said["below"], said["examples"], said["drawn"], said["rows"]) == (0.96, 3, N, PAIRS)
    pairs = checked(path, "text")
    gains = []
    for pair in pairs.values():
        before, after = pair["check"]["looks"]
        scores = [
            pair["completion"]["candidates"][one["place"]]["score"] for one in (before, after)
        ]
        gains.append(max(0.0, after["chosen"] - before["chosen"]) if scores[1] > scores[0] else 0.0)
    assert 0 < said["taken"] <= said["looked"] < PAIRS
    # A second look helps where the captioner guessed, and that is where it was looked again.
    assert said["pays"] and said["gain"]["mean"] > paired(gains, np.zeros(PAIRS)).mean
    assert said["gain"]["mean"] == pytest.approx(said["after"]["mean"] - said["before"]["mean"])
    first = np.mean([pair["check"]["looks"][0]["chosen"] for pair in pairs.values()])
    assert found["similarity"]["mean"] == pytest.approx(
        first + said["share"] * said["gain"]["mean"], abs=1e-5
    )
    gain = f"{said['gain']['mean']:+.3f} ± {said['gain']['half']:.3f}"
    [line] = [line for line in told(summary) if line.startswith("check of texts")]
    assert (
        f"{said['looked']} of {PAIRS} pairs were looked at again, which gains them {gain}" in line
    )
    assert (
        f"a second look at the {said['share']:.0%} below 0.96 gains them {gain}" in found["verdict"]
    )
    assert f"of texts {said['looked']} pairs, which gained {gain}" in card(summary["check"])
    job = Job(load_config(path))
    page = report_run(job).read_text()
    assert "Pairs looked at again, below 0.96" in page and gain in page


def test_what_stopped_goes_on_and_has_the_same_rows(
    looked: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world(tmp_path, **PAINTER)
    quick_worlds.run(path, limit=7)
    quick_worlds.run(path)
    for half in HALVES:
        own, other = made(path, half), made(looked[0], half)
        assert own.keys() == other.keys()
        for row_id, row in own.items():
            for name in ("candidates", "chosen", "score", "confidence", "second_look", "examples"):
                assert row["completion"][name] == other[row_id]["completion"][name]
    monkeypatch.setenv(LOG, str(tmp_path))
    quick_worlds.run(path)
    assert calls(tmp_path) == []


def test_in_rounds_a_second_look_goes_on_where_the_first_may_end_and_no_more_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    generate = DoubtingCaptioner.generate

    def watched(self: Any, requests: Any) -> Any:
        for request in requests:
            asked[request.row_id] += len(request.seeds)
        return generate(self, requests)

    monkeypatch.setattr(DoubtingCaptioner, "generate", watched)
    n = {"least": 2, "most": 4, "min_improvement": 0.01}
    path = world(tmp_path, n=n)
    foreseen = estimate(load_config(path))["calls"]["captions"]
    assert foreseen == [2 * 20 + (4 + 2) * PAIRS, (4 + 2) * (20 + PAIRS)]
    quick_worlds.run(path)
    rows = made(path, "text")
    drawn = {row_id: len(row["completion"]["candidates"]) for row_id, row in rows.items()}
    pairs = dict.fromkeys(checked(path, "text"), 4 + 2)
    assert asked == drawn | pairs
    assert foreseen[0] <= asked.total() <= foreseen[1]
    counts = set()
    for row_id, row in rows.items():
        first, second = looks(row)
        counts.add((len(first), len(second)))
        numbers = [*range(len(first)), *range(4, 4 + len(second))]
        seeds = [one["seed"] for one in row["completion"]["candidates"]]
        assert seeds == [derive_seed(0, row_id, number, 1) for number in numbers]
    assert {again for _, again in counts} == {0, 2} and min(counts)[0] == 2


def test_a_second_look_that_fails_leaves_the_first_and_says_so(tmp_path: Path) -> None:
    path = world(tmp_path, captioner={"kind": "tests.pipeline.check.doubted:FailingAgain"})
    quick_worlds.run(path)
    notes = []
    for row in made(path, "text").values():
        assert row["status"] == "completed" and row["completion"]["second_look"] is False
        kept = row["completion"]["candidates"][row["completion"]["chosen"]]
        notes += [one for one in kept["notes"] if "second look" in one]
    assert notes and set(notes) == {"the second look failed: HTTP 500"}


def test_of_few_checked_pairs_no_row_is_looked_at_again_and_the_run_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = world(tmp_path, check=30)
    with caplog.at_level(logging.WARNING):
        quick_worlds.run(path)
    assert all(not looks(row)[1] for row in made(path, "text").values())
    assert "no text is looked at again: the check held too few pairs" in caplog.text
    found = estimate(load_config(path))["check"]["found"]["text"]["second_look"]
    assert found["looked"] == 0 and found["rows"] is None and "gain" not in found


@pytest.mark.parametrize(
    ("generation", "changes", "message"),
    [
        ({"second_look": {}}, {}, "generation.second_look.below: .*required"),
        ({"second_look": {"below": 2}}, {}, "generation.second_look.below: .*; got 2"),
        (
            {"second_look": {"below": 0.5, "examples": 0}},
            {},
            "generation.second_look.examples: .*greater than or equal to 1; got 0",
        ),
        (
            {"second_look": {"below": 0.5, "under": 0.5}},
            {},
            "generation.second_look.under: unknown key",
        ),
        (
            {"second_look": {"below": 0.5}},
            {"run": {"check": 0}},
            "generation.second_look needs a check.*got below 0.5 with run.check 0",
        ),
        (
            {"second_look": {"below": 0.5}, "grounded": False},
            {},
            "generation.second_look: needs a generator that takes examples.*got generation.grounded",
        ),
        (
            {"second_look": {"below": 0.5}},
            {"captioner": {"kind": "tests.pipeline.check.doubted:BlindCaptioner"}},
            "generation.second_look: needs a generator that takes examples.*captioner tests.*Blind",
        ),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(
    generation: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    values = {
        "dataset": {"path": "data"},
        "encoder": {"kind": "tests.quick_parts:QuickEncoder"},
        "captioner": {"kind": "tests.quick_parts:QuickCaptioner"},
        "generation": generation,
    }
    with pytest.raises(ConfigError, match=message) as error:
        make_config(values | changes)
    assert "\n" not in str(error.value)


def test_as_many_are_drawn_again_as_is_said_or_else_as_the_first_round_has() -> None:
    needs = Needs(text=True, image=False)
    for look, n, again in (
        ({"below": 0.4, "candidates": 5}, 4, 5),
        ({"below": 0.4}, 4, 4),
        ({"below": 0.4}, {"least": 2, "most": 6}, 2),
        (None, 4, 0),
    ):
        settings = GenerationSettings.model_validate({"n": n, "second_look": look})
        assert settings.drawn_again("text", needs) == again
