"""Tuning on a share of the pairs: what is sure is written, with its evidence, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.check.intervals import interval
from pipeline.config.config import load_config
from pipeline.evaluation.tuning.trials import Trial, Tuned, write_tuned
from pipeline.evaluation.tuning.tuner import ALPHA, TAU, K, Tuner
from pipeline.storage.errors import ConfigError
from tests import quick_worlds


def world(folder: Path, **changes: object) -> Path:
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(100, 0, 0))
    others = [quick_worlds.row(number) | {"id": f"x{number}"} for number in range(100, 150)]
    quick_worlds.write(folder / "others" / "a.parquet", others)
    external = [{"name": "others", "path": "others", "licence": "CC0"}]
    knowledge = {"knowledge_base": quick_worlds.UNDECIDED}
    return quick_worlds.config(folder, external=external, **(knowledge | changes))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    judge = {"kind": "tests.quick_parts:QuickEncoder", "style": "another"}
    path = world(
        tmp_path_factory.mktemp("tuning"), generation={"n": 3}, evaluation={"judge": judge}
    )
    return path, Tuner(load_config(path), share=0.5).run()


@pytest.mark.slow
def test_everything_is_tried_on_rows_whose_truth_is_known(tuned: tuple[Path, Tuned]) -> None:
    path, found = tuned
    assert (found.rows, found.pairs) == (50, 100)
    assert [trial.settings for trial in found.trials] == [
        (K, ALPHA),
        TAU,
        ("selection.caption.lambda2",),
        ("selection.image.lambda2",),
    ]
    for trial in found.trials:
        assert len(trial.tried) > 3
        assert trial.tried[0]["values"] == trial.held
        best = max(trial.tried, key=lambda one: one["quality"])
        assert trial.best == best["values"]
    evidence = json.loads((path.parent / "runs" / "quick" / "tuning" / "tuning.json").read_text())
    assert evidence["changes"] == found.changes
    assert len(evidence["trials"]) == 4
    assert found.skipped is None


def trial(key: str, value: float, gain: float) -> Trial:
    values = np.random.default_rng(0).normal(gain, 0.001, 30)
    return Trial((key,), "quality", {key: 0.5}, [], {key: value}, interval(values))


def test_what_is_sure_is_written_and_the_file_keeps_its_comments(tmp_path: Path) -> None:
    path = world(tmp_path)
    text = path.read_text() + "# a remark at the end\n"
    path.write_text(text.replace("run:\n", "# how it is cut\nrun:\n"))
    changes = [
        trial(ALPHA, 0.25, gain=0.1),
        trial("selection.image.lambda2", 0.3, gain=-0.1),
        trial("generation.n", 4, gain=0.1),
    ]
    write_tuned(path, Tuned(50, 100, changes))
    written = path.read_text()
    assert "# a remark at the end" in written and "# how it is cut\nrun:" in written
    assert re.search(r"alpha: 0\.25 +# tuned, quality: \+0\.(1|09)\d+ ± 0\.000", written)
    config = load_config(path)
    assert config.knowledge_base.retrieval.alpha == 0.25
    assert config.knowledge_base.mapping.method == "start"
    assert config.generation.n == 4
    assert (
        config.selection.image.lambda2 == load_config(world(tmp_path / "x")).selection.image.lambda2
    )
    assert not [p for p in tmp_path.iterdir() if "tuned" in p.name]


def written(path: Path, text: str, values: dict[str, Any]) -> str:
    """A config's text after two rounds of tuning, of which the second finds the first's values."""
    path.write_text(path.read_text().replace("knowledge_base:\n", f"knowledge_base:\n{text}"))
    trials = [trial(key, value, gain=0.1) for key, value in values.items()]
    write_tuned(path, Tuned(50, 100, trials))
    once = path.read_text()
    write_tuned(path, Tuned(50, 100, trials))
    assert path.read_text() == once
    retrieval = load_config(path).knowledge_base.retrieval
    assert {K: retrieval.k, ALPHA: retrieval.alpha}.items() >= values.items()
    return re.sub(r"\+0\.\d+ ± 0\.\d+", "+", once)


def test_evidence_stands_beside_a_flow_map_and_a_remark(tmp_path: Path) -> None:
    text = "  retrieval: {k: 10, alpha: 0.5}  # as the paper\n  # of the mapping\n"
    found = written(world(tmp_path), text, {K: 50, ALPHA: 0.25})
    assert (
        "  retrieval: {k: 50, alpha: 0.25}  # as the paper; k tuned, quality: +; alpha tuned,"
        " quality: +\n  # of the mapping\n"
    ) in found


def test_evidence_stands_behind_a_users_remark(tmp_path: Path) -> None:
    text = "  retrieval:\n    # how many\n    k: 10  # few\n    # mapping next\n"
    found = written(world(tmp_path), text, {K: 50})
    assert "    # how many\n    k: 50  # few; tuned, quality: +\n    # mapping next\n" in found, (
        found
    )


def test_a_new_setting_does_not_part_a_section_from_its_remark(tmp_path: Path) -> None:
    path = world(tmp_path)
    text = path.read_text().replace("name: quick", "# what it is called\nname: quick")
    path.write_text(text)
    found = written(path, "", {ALPHA: 0.25})
    assert "knowledge_base:\n  retrieval:\n    alpha: 0.25  # tuned, quality: +\n" in found
    assert "\n# what it is called\nname: quick" in found


def test_a_gain_that_may_be_none_changes_nothing() -> None:
    assert not trial(ALPHA, 0.25, gain=0.0).changes
    assert trial(ALPHA, 0.25, gain=0.01).changes == {ALPHA: 0.25}


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(30, 0, 0))
    with pytest.raises(ConfigError, match="needs 20 pairs to hide; a share of 0.3 of 30 .* is 9"):
        Tuner(load_config(quick_worlds.config(tmp_path))).run()
