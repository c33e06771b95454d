"""What generators are asked for where candidates are drawn in rounds, and what is foreseen of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from generators.base import Generated, derive_seed
from pipeline.advice.estimate import estimate
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.generators.server import Server
from tests.pipeline.check.checked import PAIRS, config, data
from tests.pipeline.check.varied import MOST, N, VariedCaptioner, made, settings, world


def test_rows_of_a_block_are_asked_for_together_and_inspect_foresees_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Counter[str]] = []
    generate = VariedCaptioner.generate

    def watched(self: Any, requests: Any) -> Any:
        seeds: Counter[str] = Counter()
        for request in requests:
            seeds[request.row_id] += len(request.seeds)
        asked.append(seeds)
        return generate(self, requests)

    monkeypatch.setattr(VariedCaptioner, "generate", watched)
    path = world(tmp_path, N)
    foreseen = estimate(load_config(path))["calls"]["captions"]
    assert foreseen == [2 * 20 + MOST * PAIRS, MOST * (20 + PAIRS)]
    _, summary = quick_worlds.run(path)
    rows = made(path)
    of_rows = [seeds for seeds in asked if seeds.keys() <= rows.keys()]
    # Blocks of eight, eight and four rows: all of each first, then those that go on.
    first = [len(seeds) for seeds in of_rows if set(seeds.values()) == {2} and len(seeds) in (8, 4)]
    assert sorted(first)[-3:] == [4, 8, 8]
    assert len(of_rows) <= 3 * 5
    drawn = {row_id: len(row["completion"]["candidates"]) for row_id, row in rows.items()}
    assert sum(of_rows, Counter()) == drawn
    assert foreseen[0] <= sum(drawn.values()) + MOST * PAIRS <= foreseen[1]
    told = CliRunner().invoke(app, ["inspect", str(path)]).output
    mean = summary["check"]["text"]["draws"]["mean"]
    assert f"{mean:.1f} candidates a row, by the check, with 2 to 8 at" in told


def test_a_server_is_asked_for_no_more_than_is_drawn(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", data())
    with Server() as server:
        captioner = server.settings(kind="openai", concurrency=4)
        path = config(
            tmp_path,
            captioner=captioner,
            image_generator=None,
            generation={"n": N | {"most": 3}, "attempts": 1},
        )
        quick_worlds.run(path)
        drawn = [len(row["completion"]["candidates"]) for row in made(path).values()]
        assert set(drawn) <= {2, 3}
        assert len(server.seen) == sum(drawn) + 3 * PAIRS


def test_a_generator_that_fails_amid_a_row_leaves_it_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = VariedCaptioner.generate

    def failing(self: Any, requests: Any) -> Any:
        later = {derive_seed(0, one.row_id, 2, 1) for one in requests}
        return [
            Generated(one.row_id, (), "the server said 500")
            if later & set(one.seeds) and one.row_id in lacking and len(one.seeds) < 4
            else answer
            for one, answer in zip(requests, generate(self, requests), strict=True)
        ]

    lacking = {row["id"] for row in data() if row["text"] is None}
    monkeypatch.setattr(VariedCaptioner, "generate", failing)
    path = world(tmp_path, N)
    quick_worlds.run(path)
    rows = made(path)
    assert {row["status"] for row in rows.values()} == {"completed"}
    left = [
        row["completion"] for row in rows.values() if row["completion"]["candidates"][0]["notes"]
    ]
    assert left and all(len(own["candidates"]) == 2 for own in left)
    assert left[0]["candidates"][0]["notes"] == ["others failed: the server said 500"]


def test_copies_of_the_nearest_pairs_go_on_with_the_next_one(tmp_path: Path) -> None:
    texts = []
    for name, n in (("rounds", N), ("at once", MOST)):
        folder = tmp_path / name
        quick_worlds.write(folder / "data" / "a.parquet", data())
        # Of so few pairs no rule is learned, and all rounds are drawn.
        path = settings(folder, n, check=30)
        values = yaml.safe_load(path.read_text()) | {"captioner": {"kind": "nearest"}}
        path.write_text(yaml.safe_dump(values))
        quick_worlds.run(path)
        told = {
            k: [one["text"] for one in row["completion"]["candidates"]]
            for k, row in made(path).items()
        }
        texts.append(told)
    assert texts[0] == texts[1]
    assert {len(own) for own in texts[0].values()} == {MOST}
    assert any(len(set(own)) == 2 for own in texts[0].values())


def test_an_error_after_candidates_that_do_not_hold_ends_the_attempt_alone(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", data())
    captioner = {"kind": "tests.pipeline.check.varied:FailingLater"}
    path = config(
        tmp_path, captioner=captioner, image_generator=None, generation={"n": N, "attempts": 2}
    )
    quick_worlds.run(path)
    rows = quick_worlds.completed(Job(load_config(path)))
    asked = [row for row in rows.values() if row["missing"] == "text"]
    assert {row["status"] for row in asked} == {"rejected"}
    for row in asked:
        assert "attempt 1: " in row["reason"] and "attempt 2: " in row["reason"]
        assert "others failed: HTTP 500" in row["reason"]


def test_without_a_rule_to_come_all_that_may_be_are_foreseen(tmp_path: Path) -> None:
    assert (
        estimate(load_config(world(tmp_path, N, check=30)))["calls"]["captions"] == [MOST * 50] * 2
    )
