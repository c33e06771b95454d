"""What an evaluation can't do is said at once, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import load_config
from pipeline.evaluation.changes import parse_sweep
from pipeline.evaluation.experiment import Experiment
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.evaluation.evaluated import world


def test_an_evaluation_that_can_not_be_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all 48 training pairs are near-duplicates"):
        Experiment(load_config(world(tmp_path, duplicate_cosine=0.1))).run(["rag4dmc"])
    with pytest.raises(ConfigError, match="hides 0; some must stay complete"):
        Experiment(load_config(world(tmp_path, rates=[0.001]))).run(["rag4dmc"])
    place = world(tmp_path, downstream={"steps": 1})
    with pytest.raises(ConfigError, match="must be an encoder of kind open_clip"):
        Experiment(load_config(place)).run(["drop"])
    with pytest.raises(ConfigError, match="needs a variant that generates"):
        config = load_config(place)
        Experiment(config).run(["drop"], sweeps=[parse_sweep("n=1", config)])


def refused(place: Path, message: str, *given: Any, sweep: str | None = None) -> None:
    """An evaluation is refused before anything is generated."""
    config = load_config(place)
    sweeps = [] if sweep is None else [parse_sweep(sweep, config)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOG, str(place.parent))
        with pytest.raises(ConfigError, match=message):
            Experiment(config).run(*given, sweeps=sweeps)
    assert not calls(place.parent)


def test_too_few_whole_pairs_to_fine_tune_on_are_known_at_once(tmp_path: Path) -> None:
    place = world(tmp_path, rates=[0.5, 0.98], downstream={"steps": 1})
    message = "of 48 training pairs a missing rate of 0.98 leaves 1 whole, and training needs 2"
    refused(place, message, ["rag4dmc", "drop"])


def test_a_point_that_a_variant_can_not_have_is_known_at_once(tmp_path: Path) -> None:
    refused(world(tmp_path), "image_generator", ["nearest"], sweep="image_generator.style=bold")


def test_a_mask_file_is_not_overridden_nor_asks_for_what_can_not_be_made(tmp_path: Path) -> None:
    place = world(tmp_path, {"image_generator": None}, mask="mask.csv")
    ids = [row["id"] for row in quick_worlds.rows(60, 0, 0)]
    lines = [f"{row_id},{kind}" for row_id, kind in zip(ids, ["text", "image"] * 8, strict=False)]
    (tmp_path / "mask.csv").write_text("\n".join(["id,missing", *lines]))
    refused(place, "--rates: must not be given with evaluation.mask.*got 0.3", ["rag4dmc"], [0.3])
    message = (
        r"evaluation.mask: mask.csv hides the image of \d rows, and the config has no image_gen"
    )
    refused(place, message, ["rag4dmc"])


def test_a_mask_file_is_drawn_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws must be 1 with a mask file"):
        load_config(world(tmp_path, mask="mask.csv", draws=2))


@pytest.mark.parametrize("section", ["image_generator", "evaluation.judge"])
def test_a_model_that_is_not_there_is_known_before_a_pair_is_embedded(
    tmp_path: Path, section: str
) -> None:
    gone = {
        "image_generator": {"kind": "sdxl", "model": "./gone"},
        "evaluation.judge": {"kind": "open_clip", "model": "local-dir:./gone"},
    }[section]
    generator = gone if section == "image_generator" else None
    judge = {} if generator else {"judge": gone}
    place = world(tmp_path, {"image_generator": generator}, **judge)
    refused(place, rf"{section}\.\w+: no such folder: .*gone", ["rag4dmc"])


def test_a_generator_of_the_half_that_stays_is_not_asked_for(tmp_path: Path) -> None:
    gone = {"kind": "sdxl", "model": "./gone"}
    place = world(tmp_path, {"image_generator": gone}, missing="text")
    found = Experiment(load_config(place)).run(["nearest"])
    assert {record.missing for record in found.records if record.missing} == {"text"}
