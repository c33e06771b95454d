"""The parts of the training that a mistake would spoil in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.emoji.measure import recall_at, right
from examples.emoji.training.blip2 import prompt_with

CHECKPOINTS = Path(__file__).resolve().parents[2] / "examples" / "emoji" / "checkpoints"
TEXTS = ["red apple", "face with tongue", "a", "woman and man holding hands, couple, love, hug"]


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Any]:
    """Give the encoder's model and tokenizer."""
    import open_clip

    name = f"local-dir:{CHECKPOINTS / 'encoder'}"
    model, _, _ = open_clip.create_model_and_transforms(name, precision="fp32")
    return model.eval(), open_clip.get_tokenizer(name)


def test_short_rows_are_encoded_as_padded_ones(encoder: tuple[Any, Any]) -> None:
    import torch

    from examples.emoji.training.encoder import encode_text

    model, tokenizer = encoder
    padded = tokenizer(TEXTS)
    width = max(len(tokenizer.tokenizer(text).input_ids) for text in TEXTS)
    assert width < padded.shape[1]
    with torch.no_grad():
        expected, got = model.encode_text(padded), encode_text(model, padded[:, :width])
    assert torch.allclose(expected, got, atol=1e-5)


def test_the_adopted_text_tower_gives_the_encoders_directions(encoder: tuple[Any, Any]) -> None:
    import torch
    from safetensors.torch import load_file
    from torch.nn.functional import cosine_similarity
    from transformers import CLIPTextModelWithProjection

    from examples.emoji.training.painter import adopt_text_tower, text_config

    model, tokenizer = encoder
    tower = CLIPTextModelWithProjection(text_config(tokenizer.tokenizer, 128, 128)).eval()
    adopt_text_tower(tower, load_file(CHECKPOINTS / "encoder" / "open_clip_model.safetensors"))
    tokens = tokenizer(TEXTS)
    with torch.no_grad():
        expected, got = model.encode_text(tokens), tower(tokens).text_embeds
    assert float(cosine_similarity(expected, got).min()) > 0.9999


def test_recall_counts_by_hand() -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
    hits = 0
    for i in range(40):
        scores = [float(queries[i] @ keys[j]) for j in range(40)]
        hits += i in sorted(range(40), key=lambda j: -scores[j])[:5]
    assert recall_at(queries, keys, 5) == pytest.approx(hits / 40)


@pytest.mark.parametrize(
    ("said", "name", "expected"),
    [
        ("red apple", "red apple", True),
        ("green apple", "red apple", True),
        ("apple core", "pear", False),
        ("grinning face", "face with tongue", False),
        ("cup of tea", "cup with straw", True),
    ],
)
def test_a_caption_is_right_by_name_or_head_noun(said: str, name: str, expected: bool) -> None:
    assert right(said, name) is expected


def test_prompts_are_the_pipelines() -> None:
    assert prompt_with([]) == "Please write a caption of the image. Caption:"
    assert (
        prompt_with(["red fruit"])
        == "Please write two captions of the image. Caption 1: red fruit Caption 2:"
    )
    assert prompt_with(["a", "b"]).startswith("Please write three captions of the image. ")


@pytest.mark.slow
def test_every_stage_runs_and_leaves_checkpoints_that_load(tmp_path: Path) -> None:
    import subprocess
    import sys

    from examples.emoji.sources import HERE, WORK

    if not (WORK / "pictures").is_dir():
        pytest.skip("the training pictures are fetched from npm by examples.emoji.train")
    command = [sys.executable, "-m", "examples.emoji.train", "all", "--quick"]
    command += ["--work", str(tmp_path), "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=HERE.parents[1], check=True, timeout=600)
    from diffusers import StableDiffusionXLPipeline
    from transformers import Blip2ForConditionalGeneration

    StableDiffusionXLPipeline.from_pretrained(tmp_path / "out" / "sdxl", add_watermarker=False)
    Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out" / "captioner")
    for which in ("encoder", "encoder-judge"):
        assert (tmp_path / "out" / which / "open_clip_model.safetensors").is_file()
