"""Models that can't be loaded end a run in one line, and before a knowledge base is built."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import make_config
from pipeline.job import Job
from pipeline.models.candidates import CandidateStore
from pipeline.models.components import Component
from pipeline.storage.errors import ConfigError
from tests.pipeline.models.test_candidates import caption
from tests.worlds import CHECKPOINTS, scene_rows, settings, write_world

CAPTIONER = str(CHECKPOINTS / "captioner")
SDXL = str(CHECKPOINTS / "sdxl")


def job_with(folder: Path, **parts: dict[str, Any]) -> Job:
    write_world(folder, scene_rows(4, 1, 1))
    return Job(make_config(settings(**parts), folder))


def cut_short(source: str, folder: Path) -> str:
    """A copy of a checkpoint whose weights end too early."""
    shutil.copytree(source, folder)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:10_000])
    return str(folder)


@pytest.mark.parametrize(
    ("section", "part", "said"),
    [
        ("captioner", {"kind": "blip2", "model": SDXL}, "no config.json"),
        ("captioner", {"kind": "vlm", "model": CAPTIONER}, "no chat template"),
        ("image_generator", {"kind": "sdxl", "model": CAPTIONER}, "no model_index.json"),
        ("image_generator", {"kind": "sdxl", "model": SDXL, "size": 13}, "multiple of 8"),
    ],
    ids=["another format", "no chat model", "no SDXL", "a size that can't be drawn"],
)
def test_a_generator_that_cannot_be_loaded_is_known_before_the_build(
    tmp_path: Path, section: str, part: dict[str, Any], said: str
) -> None:
    job = job_with(tmp_path, **{section: part})
    with pytest.raises(ConfigError, match=f"^{section}: .* can't be loaded: .*{said}"):
        job.try_generators()


def test_damaged_weights_are_told_in_one_line(tmp_path: Path) -> None:
    model = cut_short(CAPTIONER, tmp_path / "cut")
    job = job_with(tmp_path, captioner={"kind": "blip2", "model": model})
    with pytest.raises(ConfigError, match="^captioner: .*cut can't be loaded: ") as told:
        job.try_generators()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"kind": "open_clip", "model": f"local-dir:{CAPTIONER}"}, "open_clip_config.json"),
        ({"kind": "transformers", "model": CAPTIONER}, "does not embed (image|text)s"),
    ],
    ids=["no open_clip folder", "a model that embeds nothing"],
)
def test_an_encoder_that_cannot_be_loaded(
    tmp_path: Path, encoder: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^encoder: .* can't be loaded: .*{said}"):
        job_with(tmp_path, encoder=encoder).build()


def test_a_knowledge_base_that_stands_asks_for_no_trial(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    job.build()
    other = Job(make_config(settings(captioner={"kind": "blip2", "model": SDXL}), tmp_path))
    other.try_generators()
    with pytest.raises(ConfigError, match="^captioner: "):
        other.models.generator("text")


class Flaky:
    def load(self) -> None:
        raise TimeoutError(110, "Connection timed out")


def test_a_failing_network_stays_what_it_is_and_may_be_tried_again(tmp_path: Path) -> None:
    config = make_config(settings(), tmp_path)
    with pytest.raises(TimeoutError):
        Component.load(config.encoder_component(), Flaky())


def test_a_memory_loads_by_the_rule_of_the_part(tmp_path: Path) -> None:
    def refuse(generator: Any) -> None:
        raise ConfigError("captioner: can't be loaded")

    remembering = CandidateStore(tmp_path / "m.sqlite").around(Flaky(), {}, refuse)
    remembering.load()
    with pytest.raises(ConfigError):
        remembering.generate([caption("a", (1,))])
