"""Candidates are drawn in rounds, as many as the check finds worth it, and what arrives says so."""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import derive_seed
from pipeline.check import lessons
from pipeline.check.candidates import Candidates
from pipeline.completion.stopping import Stopping
from pipeline.config.config import load_config, make_config
from pipeline.ledger.summary import told
from pipeline.storage.errors import ConfigError
from selection.scales import Standards
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.check.checked import PAIRS, checked
from tests.pipeline.check.varied import MOST, N, made, settings, sure, world


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = world(tmp_path_factory.mktemp("at_once"), MOST)
    quick_worlds.run(path)
    return path


@pytest.fixture(scope="module")
def in_rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = world(tmp_path_factory.mktemp("in_rounds"), N)
    return path, quick_worlds.run(path)[1]


def test_a_row_drawn_in_rounds_is_a_prefix_of_the_row_drawn_at_once(
    at_once: Path, in_rounds: tuple[Path, dict[str, Any]]
) -> None:
    whole, parts = made(at_once), made(in_rounds[0])
    counts = set()
    for row_id, row in parts.items():
        own, other = row["completion"]["candidates"], whole[row_id]["completion"]["candidates"]
        counts.add(len(own))
        assert row["status"] == "completed" and len(own) in (2, 3, 4, 6, 8) and len(other) == MOST
        for name in ("text", "seed", "attempt", "examples", "valid", "cosine", "hubness"):
            assert [one[name] for one in own] == [one[name] for one in other[: len(own)]]
        assert [one["seed"] for one in own] == [
            derive_seed(0, row_id, n, 1) for n in range(len(own))
        ]
        # Examples are shown to every other one, so that few are a mixture as many are.
        assert [len(one["examples"]) for one in own] == [2, 0] * (len(own) // 2) + [2] * (
            len(own) % 2
        )
        if len(own) == MOST:
            for name in ("chosen", "score", "prompt", "seed", "attempt", "examples", "candidates"):
                assert row["completion"][name] == whole[row_id]["completion"][name]
            assert row["text"] == whole[row_id]["text"]
    assert min(counts) < 4 and max(counts) > 4


def test_where_all_draws_are_the_same_few_are_made(
    in_rounds: tuple[Path, dict[str, Any]],
) -> None:
    drawn: dict[bool, list[int]] = {True: [], False: []}
    for row in made(in_rounds[0]).values():
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        drawn[sure(image)].append(len(row["completion"]["candidates"]))
    assert set(drawn[True]) <= {2, 3} and np.mean(drawn[False]) > 3.5


def test_the_check_draws_all_and_says_what_the_rest_would_have_gained(
    in_rounds: tuple[Path, dict[str, Any]], at_once: Path
) -> None:
    path, summary = in_rounds
    pairs, found = checked(path, "text"), summary["check"]["text"]
    assert len(pairs) == PAIRS
    assert all(len(pair["completion"]["candidates"]) == MOST for pair in pairs.values())
    # It is what a check of all at once draws: other prices ask for none anew.
    assert pairs.keys() == checked(at_once, "text").keys()
    said = found["draws"]
    assert (said["least"], said["most"], said["min_improvement"], said["rows"]) == (
        2,
        8,
        0.01,
        PAIRS,
    )
    rows = [len(row["completion"]["candidates"]) for row in made(path).values()]
    assert said["mean"] == pytest.approx(np.mean(rows), abs=1.2) and said["mean"] < MOST
    assert said["loss"]["mean"] < 0.05
    best = np.mean([pair["check"]["chosen"] for pair in pairs.values()])
    assert found["similarity"]["mean"] == pytest.approx(best - said["loss"]["mean"], abs=1e-5)
    assert said["curve"][-1]["mean"] == pytest.approx(best, abs=1e-6)
    assert said["curve"][0]["mean"] < said["curve"][-1]["mean"]
    [line] = [line for line in told(summary) if line.startswith("check of texts")]
    assert f"{said['mean']:.1f} of 8 candidates drawn" in line
    held = json.loads((path.parent / "runs/quick/check/text/figures.json").read_text())["learned"]
    assert Stopping.parse(held["stopping"]).rows == PAIRS


def test_no_pair_is_stopped_by_a_rule_that_was_fitted_on_it(
    in_rounds: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = in_rounds
    rows = list(checked(path, "text").values())
    fitted: dict[int, set[int]] = {}
    judged: list[tuple[int, int]] = []
    gains: dict[int, int] = {}
    real, gains_of = lessons.stopping, lessons.Gains.of

    class Watched:
        @staticmethod
        def fit(some: list[Any]) -> Any:
            found = real.fit(some)
            fitted[id(found)] = {gains[id(one)] for one in some}
            kept.append(found)
            return found

        @staticmethod
        def stopped(pair: Candidates, by: Any, ends: Any, price: float) -> Any:
            choice = real.stopped(pair, by, ends, price)
            # Of a pair with all that it has the choice is the same object each time.
            choice = replace(choice)
            judged.append((id(choice), id(by)))
            places[id(choice)] = id(pair)
            kept.append(choice)
            return choice

    def watched(pair: Candidates, least: int, seed: int) -> Any:
        found = gains_of(pair, least, seed)
        gains[id(found)] = id(pair)
        kept.append(found)
        return found

    monkeypatch.setattr(lessons.Gains, "of", watched)
    kept: list[Any] = []
    places: dict[int, int] = {}
    monkeypatch.setattr(lessons, "stopping", Watched)
    found = lessons.learn(rows, "text", load_config(path), Standards())
    assert found is not None
    by = dict(judged)
    assert len(fitted) == 6
    for choice in found.choices:
        assert places[id(choice)] not in fitted[by[id(choice)]]
    for choice in found.whole:
        assert len(fitted[by[id(choice)]]) == PAIRS


@pytest.mark.slow
def test_what_stopped_goes_on_where_it_was_and_a_rerun_asks_for_nothing(
    in_rounds: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world(tmp_path, N)
    quick_worlds.run(path, limit=7)
    quick_worlds.run(path)
    own, other = made(path), made(in_rounds[0])
    assert len(own) == 20
    for row_id, row in own.items():
        for name in ("candidates", "chosen", "score", "confidence"):
            assert row["completion"][name] == other[row_id]["completion"][name]
    monkeypatch.setenv(LOG, str(tmp_path))
    quick_worlds.run(path)
    assert calls(tmp_path) == []


def test_another_price_redoes_rows_and_checks_none_anew(
    in_rounds: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(in_rounds[0].parent, tmp_path / "w")
    path = settings(folder, N | {"min_improvement": 10.0})
    monkeypatch.setenv(LOG, str(folder))
    _, summary = quick_worlds.run(path)
    assert {row_id for _, row_id in calls(folder)} == set(made(path))
    assert {len(row["completion"]["candidates"]) for row in made(path).values()} == {2}
    assert summary["check"]["text"]["draws"]["mean"] == 2
    quick_worlds.run(settings(folder, N | {"min_improvement": 0.0}))
    assert max(len(row["completion"]["candidates"]) for row in made(path).values()) == MOST


def test_a_check_of_few_pairs_draws_all_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = world(tmp_path, N, check=30)
    with caplog.at_level(logging.WARNING):
        quick_worlds.run(path)
    assert {len(row["completion"]["candidates"]) for row in made(path).values()} == {MOST}
    assert "8 candidates are drawn for every text: the check held too few pairs" in caplog.text
    assert "every image" not in caplog.text


@pytest.mark.parametrize(
    ("n", "run", "message"),
    [
        ({"least": 5, "most": 3}, {}, "generation.n: least must be at most most; got 5 > 3"),
        ({"least": 0}, {}, r"generation.n.least: .*greater than or equal to 1; got 0"),
        ({"fewest": 2}, {}, "generation.n.fewest: unknown key"),
        ({"min_improvement": -1}, {}, "generation.n.min_improvement: .*; got -1"),
        ("two", {}, "generation.n: .*valid integer.*got 'two'"),
        (
            {"least": 2, "most": 4},
            {"check": 0},
            "generation.n needs a check.*got 2 to 4 with run.check 0",
        ),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(n: Any, run: dict[str, Any], message: str) -> None:
    values = {
        "dataset": {"path": "data"},
        "encoder": {"kind": "tests.quick_parts:QuickEncoder"},
        "captioner": {"kind": "tests.quick_parts:QuickCaptioner"},
        "generation": {"n": n},
        "run": run,
    }
    with pytest.raises(ConfigError, match=message) as error:
        make_config(values)
    assert "\n" not in str(error.value)
