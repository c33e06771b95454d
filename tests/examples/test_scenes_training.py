"""The parts of the training that a mistake would spoil in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.scenes.grammar import PLAIN, words
from examples.scenes.scenes import Composer
from examples.scenes.sources import HERE, WORK
from examples.scenes.things import GROUNDS, Sprite, Thing, load_things
from examples.scenes.training.blip2 import prompt_with
from examples.scenes.training.lessons import School
from examples.scenes.training.pool import Pool, content_words, training_things
from generators.base import Example, ImageRequest
from generators.sdxl import SdxlImageGenerator
from generators.sdxl_settings import SdxlSettings
from tests.worlds import CHECKPOINTS

TEXTS = [
    "galley: grey blade starboard, two pippins port",
    "two red apples on the left and a grey knife on the right, on a table",
    "a",
    "stock picture, bicycle (rear); tractor (l.); ambulance (r.); street",
]


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Any]:
    """Give the encoder's model and tokenizer."""
    import open_clip

    name = f"local-dir:{CHECKPOINTS / 'encoder'}"
    model, _, _ = open_clip.create_model_and_transforms(name, precision="fp32")
    return model.eval(), open_clip.get_tokenizer(name)


def test_short_rows_are_encoded_as_padded_ones(encoder: tuple[Any, Any]) -> None:
    import torch

    from examples.scenes.training.towers import encode_text

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

    from examples.scenes.training.painter import adopt_text_tower, text_config
    from examples.scenes.training.towers import EMBED_DIM

    model, tokenizer = encoder
    tower = CLIPTextModelWithProjection(text_config(tokenizer.tokenizer, 128, EMBED_DIM)).eval()
    adopt_text_tower(tower, load_file(CHECKPOINTS / "encoder" / "open_clip_model.safetensors"))
    tokens = tokenizer(TEXTS)
    with torch.no_grad():
        expected, got = model.encode_text(tokens), tower(tokens).text_embeds
    assert float(cosine_similarity(expected, got).min()) > 0.9999


def test_a_new_captioner_goes_on_as_it_went_on_before() -> None:
    import torch
    from transformers import Blip2Processor

    from examples.scenes.training.blip2 import new_captioner

    torch.manual_seed(0)
    speech: Any = new_captioner(Blip2Processor.from_pretrained(CHECKPOINTS / "captioner"))
    speech = speech.language_model.eval()
    speech.set_attn_implementation("eager")
    before, said = (torch.randint(5, speech.config.vocab_size, (8, n)) for n in (30, 15))
    ids = torch.cat([before, said, said], dim=1)
    with torch.no_grad():
        read = speech.model(input_ids=ids, output_attentions=True)
        foretold = speech.lm_head(read.last_hidden_state)
    again = torch.arange(45, 59)
    # The second layer looks at what followed the same word the first time, through the first layer.
    looked = read.attentions[1][:, 0, again].argmax(-1)
    assert (looked == again - 14).float().mean() > 0.9
    right = foretold[:, again].gather(2, ids[:, again + 1][..., None])
    assert (right > foretold[:, again]).float().mean() > 0.9
    first = foretold[:, again - 15].gather(2, ids[:, again - 14][..., None])
    assert (first > foretold[:, again - 15]).float().mean() < 0.6


def test_prompts_are_the_pipelines() -> None:
    assert prompt_with([]) == "Please write a caption of the image. Caption:"
    assert (
        prompt_with(["red fruit"])
        == "Please write two captions of the image. Caption 1: red fruit Caption 2:"
    )
    assert prompt_with(["a", "b"]).startswith("Please write three captions of the image. ")


def few(count: int) -> Pool:
    """Give a pool of scenes without pictures: two in three of known things, others of a gizmo."""
    things = tuple(thing for thing in load_things() if not thing.novel)
    gizmo = Thing("gizmo", "gizmo", GROUNDS, "gizmo")
    composer = Composer(
        {thing: (Sprite(Image.new("RGBA", (8, 8), "red"), None),) for thing in (*things, gizmo)},
        {gizmo: 4.0},
    )
    rng = np.random.default_rng(0)
    scenes = [composer.plan(rng) for _ in range(count)]
    nothing = np.zeros((count, 0))
    return Pool((*things, gizmo), scenes, nothing, nothing)


def test_lessons_are_told_in_the_words_that_their_examples_show() -> None:
    school = School(few(900), ("gamboge", "trellis", "quorum", "bosun", "zephyr", "ampoule"))
    rng = np.random.default_rng(1)
    copied = 0
    for row in school.draw_rows(200, 1, rng):
        (example,), answer = school.lesson(int(row), 1, rng)
        plain = set(words(PLAIN.tell(school.scenes[row])))
        plain |= {word for g in school.scenes[row].groups for word in words(g.thing.name)}
        strange = [word for word in words(answer) if word not in plain and len(word) > 2]
        # In the plural or not, it begins as it does in the example.
        assert all(word[:4] in example for word in strange), (example, answer)
        copied += any(word[:4] in example for word in strange)
    assert copied > 100


def test_without_an_example_a_lesson_is_told_plainly() -> None:
    school = School(few(300), ("gamboge", "trellis"))
    rng = np.random.default_rng(2)
    for row in school.draw_rows(60, 0, rng):
        examples, answer = school.lesson(int(row), 0, rng)
        assert examples == []
        assert answer == PLAIN.tell(school.scenes[row])
        assert all(group.thing in school.known for group in school.scenes[row].groups)


def test_nothing_that_is_held_back_is_learned_from() -> None:
    if not (WORK / "unpacked").is_dir():
        pytest.skip("the drawings are fetched from npm by examples.scenes.train")
    held_back = [thing for thing in load_things() if thing.novel]
    for thing in training_things():
        assert thing.emoji not in {other.emoji for other in held_back}
        assert not content_words(thing.name) & {
            word for other in held_back for word in content_words(other.name)
        }


def test_a_standardised_autoencoder_draws_the_same_from_latents_that_vary_by_one() -> None:
    import torch

    from examples.scenes.training.vae import LATENT_CHANNELS, new_vae, standardise

    torch.manual_seed(0)
    plain, changed = new_vae().eval(), new_vae().eval()
    changed.load_state_dict(plain.state_dict())
    pictures = torch.rand(6, 3, 64, 64) * 2 - 1
    mean, deviation = torch.randn(LATENT_CHANNELS), torch.rand(LATENT_CHANNELS) + 0.5
    standardise(changed, mean, deviation)
    with torch.no_grad():
        before, after = (vae.encode(pictures).latent_dist for vae in (plain, changed))
        shift, scale = mean[:, None, None], deviation[:, None, None]
        torch.testing.assert_close(after.mean, (before.mean - shift) / scale, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after.std, before.std / scale, atol=1e-4, rtol=1e-3)
        drawn, expected = changed.decode(after.mean).sample, plain.decode(before.mean).sample
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_every_stage_runs_and_leaves_checkpoints_that_load(tmp_path: Path) -> None:
    if not (WORK / "unpacked").is_dir():
        pytest.skip("the drawings are fetched from npm by examples.scenes.train")
    (tmp_path / "unpacked").symlink_to(WORK / "unpacked")
    command = [sys.executable, "-m", "examples.scenes.train", "all", "--quick"]
    command += ["--work", str(tmp_path), "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=HERE.parents[1], check=True, timeout=600)
    from transformers import Blip2ForConditionalGeneration

    settings = SdxlSettings(model="sdxl", grounding="img2img", steps=4)
    painter = SdxlImageGenerator(settings, {"model": tmp_path / "out" / "sdxl"})
    example = Example("pair", "two red apples", Image.new("RGB", (64, 64), "red"))
    for shown in ((), (example,)):
        (answer,) = painter.generate([ImageRequest("row", "a grey knife", shown, (1, 2))])
        assert answer.error is None and len(answer.candidates) == 2
    Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out" / "captioner")
    for which in ("encoder", "encoder-judge"):
        assert (tmp_path / "out" / which / "open_clip_model.safetensors").is_file()
    again = [
        *command[:3],
        "captioner",
        *command[4:5],
        "--begin",
        str(tmp_path / "out" / "captioner"),
    ]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "unpacked").symlink_to(WORK / "unpacked")
    again += ["--work", str(tmp_path / "again"), "--out", str(tmp_path / "again")]
    subprocess.run(again, cwd=HERE.parents[1], check=True, timeout=600)
    first, on = (
        Blip2ForConditionalGeneration.from_pretrained(folder / "captioner").state_dict()
        for folder in (tmp_path / "out", tmp_path / "again")
    )
    # It sees as the one that it went on from, and speaks otherwise.
    same = {name for name in first if first[name].equal(on[name])}
    assert {name for name in first if not name.startswith("language")} <= same < set(first)
