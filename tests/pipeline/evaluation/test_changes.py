"""Variants and points of sweeps as changes of a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.config import Config, load_config
from pipeline.config.generation import GenerationSettings
from pipeline.config.variants import VARIANTS
from pipeline.evaluation.changes import derive, parse_sweep
from pipeline.storage.errors import ConfigError
from tests import quick_worlds


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(quick_worlds.config(tmp_path))


@pytest.mark.parametrize("name", [v.name for v in VARIANTS.values() if v.generates])
def test_every_variant_is_a_config_that_validates(config: Config, name: str) -> None:
    derived = derive(config, VARIANTS[name].changes, Path("/tmp/out"))
    assert str(derived.folder) == "/tmp/out"
    assert derived.encoder == config.encoder


def test_the_table_differs_in_knowledge_purification_and_retrieval_alone(config: Config) -> None:
    found = {}
    for name in ("vanilla", "combined", "purified", "rag4dmc"):
        knowledge = derive(config, VARIANTS[name].changes, Path("/tmp/out")).knowledge_base
        found[name] = (knowledge.sources, knowledge.purify, knowledge.retrieval.mode)
    both = ["internal", "external"]
    assert found["vanilla"][0] == ["internal"] and found["vanilla"][2] == "cross"
    assert found["combined"] == (both, False, "cross")
    assert found["purified"] == (both, True, "cross")
    assert found["rag4dmc"] == (both, True, config.knowledge_base.retrieval.mode)


def test_a_preset_stays_where_a_variant_says_nothing(tmp_path: Path) -> None:
    path = quick_worlds.config(tmp_path, preset="paper")
    derived = derive(load_config(path), VARIANTS["purified"].changes, Path("/tmp/out"))
    assert derived.knowledge_base.filter.tau_cent == 0.6
    assert derived.knowledge_base.retrieval.k == 10


def test_a_sweep_takes_short_and_joined_keys(config: Config) -> None:
    sweep = parse_sweep("retrieval.k=5,10", config)
    assert sweep.points() == [
        ("retrieval.k=5", {"knowledge_base.retrieval.k": 5}),
        ("retrieval.k=10", {"knowledge_base.retrieval.k": 10}),
    ]
    joined = parse_sweep("filter.tau_cent+filter.tau_inst=0.4", config).points()[0][1]
    assert joined == {
        "knowledge_base.filter.tau_cent": 0.4,
        "knowledge_base.filter.tau_inst": 0.4,
    }
    for n in (4, {"least": 2, "most": 10}):
        generation = GenerationSettings.model_validate({"n": n})
        drawn = config.model_copy(update={"generation": generation})
        assert parse_sweep("n=1,4", drawn).keys == ("generation.n",)
    painter = parse_sweep("image_generator.style=bold", config)
    changed = derive(config, painter.points()[0][1], Path("/tmp/out"))
    assert changed.generator_component("image").settings.style == "bold"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retrieval.k", "must be key=a,b,c"),
        ("retrieval.q=1", "no such setting: 'retrieval.q'"),
        ("retrieval=1", "no such setting: 'retrieval'"),
        ("n=[1", r"--sweep: '\[1' is no value; got 'n=\[1'"),
        ("n=1,", "--sweep: a value is empty; got 'n=1,'"),
        ("n=1,0", r"--sweep: generation\.n: .*greater than or equal to 1; got 0"),
        ("n=abc", r"--sweep: generation\.n: .*valid integer.*got 'abc'"),
        ("evaluation.seed=1,2", "--sweep: must be a setting under knowledge_base, .*got 'evalu"),
        ("run.seed=1", "must be a setting under"),
        ("output=a,b", "must be a setting under"),
        ("engine.kind=local", "must be a setting under"),
        ("dataset.max_pixels=100", "must be a setting under"),
        # Queries and near-duplicates go by the config's own.
        ("encoder.style=bold", "must be a setting under"),
    ],
)
def test_a_wrong_sweep_is_refused(config: Config, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sweep(text, config)


def test_a_repeated_value_of_a_sweep_counts_once(config: Config) -> None:
    assert parse_sweep("n=1,4,1", config).values == (1, 4)
