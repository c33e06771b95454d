"""Settings of an evaluation, and the variants that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.config import Config, load_config, make_config
from pipeline.config.evaluation import FineTuningSettings, HeadsSettings
from pipeline.config.variants import TABLE, name_variants
from pipeline.storage.errors import ConfigError
from tests import quick_worlds


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(quick_worlds.config(tmp_path))


def test_variants_are_named_by_comma_and_by_group() -> None:
    assert name_variants("drop, rag4dmc,drop") == ["drop", "rag4dmc"]
    assert name_variants("table") == list(TABLE)
    assert "without-filter" in name_variants("rag4dmc,ablations")
    with pytest.raises(ConfigError, match="--variants: must be among .*got 'rag'"):
        name_variants("rag")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rates": [1.0]}, "a missing rate must lie between 0 and 1; got 1"),
        ({"variants": ["rag"]}, "a variant must be one of"),
        ({"shares": 1}, "evaluation.shares: unknown key"),
        ({"downstream": "head"}, "evaluation.downstream: .*'head'"),
        ({"downstream": {"kind": "heads", "start": {}}}, "downstream.heads.start: unknown key"),
        ({"downstream": {"width": 8}}, "downstream.open_clip.width: unknown key"),
    ],
)
def test_wrong_settings_of_an_evaluation_are_named(
    config: Config, values: dict[str, object], message: str
) -> None:
    settings = config.model_dump(mode="json") | {"evaluation": values}
    with pytest.raises(ConfigError, match=message):
        make_config(settings, config.base)


def test_what_learns_is_named_or_set_and_is_a_model_unless_it_says_heads(config: Config) -> None:
    def downstream(given: object) -> object:
        settings = config.model_dump(mode="json") | {"evaluation": {"downstream": given}}
        return make_config(settings, config.base).evaluation.downstream

    assert downstream("heads") == HeadsSettings()
    assert downstream({"kind": "heads", "width": 8}) == HeadsSettings(width=8)
    assert downstream({"steps": 7}) == FineTuningSettings(steps=7)
    assert downstream(None) is None
    again = make_config(config.model_dump(mode="json"), config.base).evaluation
    assert again.downstream == config.evaluation.downstream == FineTuningSettings()
