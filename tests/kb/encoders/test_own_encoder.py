"""The worked example of an encoder of one's own, alone and beside another in a pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from examples.own_encoder import ColourWordEncoder, ColourWordSettings
from kb.encoders.pair import PairEncoder, PairSettings
from pipeline.config.config import load_config
from pipeline.storage.errors import ConfigError
from tests import quick_worlds

ADDRESS = "examples.own_encoder:ColourWordEncoder"
COLOURS = ["red", "blue", "green", "white", "black"]


def own() -> ColourWordEncoder:
    return ColourWordEncoder(ColourWordSettings(kind=ADDRESS), {})


def test_it_keeps_the_contract_of_the_others() -> None:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in COLOURS]
    texts = ["a red hat", "a red cat", "two dogs", "", "??"]
    for modality, items in (("image", pictures), ("text", texts)):
        found = own().encode(iter(items), modality)
        assert found.dtype == np.float32
        assert found.shape == (5, own().dimension(modality))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        alone = np.concatenate([own().encode([item], modality) for item in items])
        np.testing.assert_allclose(found, alone, atol=1e-6)
        assert own().encode([], modality).shape == (0, own().dimension(modality))
    assert own().encode(texts, "text")[0] @ own().encode(texts, "text")[1] == pytest.approx(2 / 3)


def test_a_thin_picture_is_a_row_as_any_other() -> None:
    assert own().encode([Image.new("RGB", (1, 20_000), "red")], "image").shape == (1, 256)


@pytest.mark.parametrize(
    "encoder",
    [
        {"kind": ADDRESS, "cells": 3},
        {"kind": "pair", "image": {"kind": ADDRESS}, "text": {"kind": ADDRESS, "words": 64}},
        {
            "kind": "pair",
            "image": {"kind": "tests.quick_parts:QuickEncoder"},
            "text": {"kind": ADDRESS},
        },
    ],
)
def test_a_whole_run_is_grounded_by_it(encoder: dict[str, object], tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(40, 4, 4))
    knowledge = {"mapping": {"method": "ridge"}, "device": "cpu"}
    config = quick_worlds.config(tmp_path, encoder=encoder, knowledge_base=knowledge)
    job, _ = quick_worlds.run(config)
    rows = quick_worlds.completed(job)
    made = [row for row in rows.values() if row["status"] == "completed"]
    assert len(made) == 8
    assert all(row["completion"]["examples"] for row in made)
    width = {"image": 12, "text": 512}
    if encoder["kind"] == ADDRESS:
        width["image"] = 9 * 64
    elif encoder["image"]["kind"] == ADDRESS:
        width = {"image": 256, "text": 64}
    assert job.knowledge.base.manifest["dimensions"] == width
    assert pq.read_table(job.config.folder / "completed").num_rows == 48


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ({"kind": "nowhere:Encoder"}, "encoder.image: kind 'nowhere:Encoder' can't be imported"),
        ({"kind": "kb.embeddings:Stacked"}, "encoder.image: kind 'kb.embeddings:Stacked' needs a"),
        ({"kind": "pair"}, "encoder.image: kind must be one of open_clip, transformers, or pack"),
        (
            {"kind": ADDRESS, "cells": 0},
            "encoder.image.cells: .* greater than or equal to 1; got 0",
        ),
        ({"kind": ADDRESS, "colour": 1}, "encoder.image.colour: unknown key"),
        ({}, "encoder.image: settings of an encoder with its kind are required"),
    ],
)
def test_a_wrong_encoder_within_a_pair_is_told_in_one_line(
    image: dict[str, object], told: str, tmp_path: Path
) -> None:
    encoder = {"kind": "pair", "image": image, "text": {"kind": ADDRESS}}
    with pytest.raises(ConfigError, match=told) as caught:
        load_config(quick_worlds.config(tmp_path, encoder=encoder)).encoder_part()
    assert "\n" not in str(caught.value)


def test_models_of_both_halves_have_roles_of_their_own() -> None:
    settings = PairSettings(
        image={"kind": "tests.kb.encoders.test_own_encoder:TwoModels"}, text={"kind": ADDRESS}
    )
    assert settings.models() == {"image": ("a/b", None), "image.tags": ("c/d", "v1")}
    made = PairEncoder(settings, {"image": Path("/b"), "image.tags": Path("/d")})
    assert made.encoders["image"].paths == {"model": Path("/b"), "tags": Path("/d")}
    with pytest.raises(ValidationError):
        PairSettings(image={"kind": ADDRESS})


class TwoModelSettings(ColourWordSettings):
    def models(self) -> dict[str, tuple[str, str | None]]:
        return {"model": ("a/b", None), "tags": ("c/d", "v1")}


class TwoModels(ColourWordEncoder):
    Settings = TwoModelSettings

    def __init__(self, settings: TwoModelSettings, paths: dict[str, Path]) -> None:
        super().__init__(settings, paths)
        self.paths = dict(paths)
