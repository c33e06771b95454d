"""What a run has embedded reaches no encoder again, whatever evaluates or tunes it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config.config import Config, load_config
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.tuning.tuner import Tuner
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.evaluation.evaluated import world

NOTED = {"kind": "tests.quick_parts:NotedEncoder"}


def encoded(folder: Path) -> list[str]:
    """What reached an encoder so far, in order."""
    return [told for _, told in calls(folder) if told.startswith(("image ", "text "))]


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A config whose encoder notes what it is asked for."""
    monkeypatch.setenv(LOG, str(tmp_path))
    return tmp_path, world(tmp_path, {"encoder": NOTED})


def evaluate(config: Config) -> None:
    Experiment(config).run(["drop", "complete"])


def tune(config: Config) -> None:
    Tuner(config, share=0.5).run()


@pytest.mark.parametrize("proof", [evaluate, pytest.param(tune, marks=pytest.mark.slow)])
def test_an_evaluation_and_tuning_embed_nothing_that_the_run_has(
    noted: tuple[Path, Path], proof: Callable[[Config], None]
) -> None:
    folder, place = noted
    quick_worlds.run(place)
    before = encoded(folder)
    assert len(before) >= 4 * 60 - 4
    proof(load_config(place))
    assert encoded(folder) == before


def test_a_run_embeds_nothing_that_an_evaluation_has(noted: tuple[Path, Path]) -> None:
    folder, place = noted
    Experiment(load_config(place)).run(["drop"])
    before = encoded(folder)
    assert max(Counter(before).values()) == 1
    quick_worlds.run(place)
    assert encoded(folder) == before


def test_of_pairs_that_take_no_part_nothing_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path))
    place = world(tmp_path, {"encoder": NOTED}, pairs=24, draws=2)
    experiment = Experiment(load_config(place))
    worlds = [experiment.draw(number).world for number in range(2)]
    # Those that take part are drawn anew for each draw, and every external pair may.
    chosen = [{*one.test, *one.train} for one in worlds]
    assert [len(ids) for ids in chosen] == [24, 24]
    assert chosen[0] != chosen[1]
    experiment.run(["drop", "complete"])
    own = [row.texts for one in worlds for row in one.rows.values()]
    others = pq.read_table(tmp_path / "others", columns=["text"])["text"].to_pylist()
    texts = {text for several in own for text in several} | set(others)
    asked = [told.removeprefix("text ") for told in encoded(tmp_path) if told.startswith("text ")]
    assert sorted(asked) == sorted(_digest(text.encode()) for text in texts)
    pictures = [told for told in encoded(tmp_path) if told.startswith("image ")]
    assert len(pictures) == len(asked)


def _digest(content: bytes) -> str:
    """As `NotedEncoder` writes it."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@pytest.mark.slow
def test_another_judge_sees_each_pair_once_and_each_generated_half_once(
    noted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = noted
    monkeypatch.setenv(LOG, str(folder / "judge"))
    (folder / "judge").mkdir()
    place = world(folder, judge=NOTED)
    # Two variants that make the same halves, and the judge is asked for none of them twice.
    found = Experiment(load_config(place)).run(["rag4dmc", "without-alignment"])
    Tuner(load_config(place), share=0.5).run()
    counts = Counter(encoded(folder / "judge"))
    assert found.value(0.5, "rag4dmc", measure="cosine") is not None
    assert counts and max(counts.values()) == 1
