"""The checkpoints of the world of scenes: each loads from its folder, wherever that lies, and runs."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.worlds import CHECKPOINTS, SCENES


def pairs(count: int) -> list[tuple[Image.Image, str]]:
    """Give the first pairs of the target."""
    rows = pq.read_table(SCENES / "target.parquet").slice(0, count).to_pylist()
    return [(Image.open(io.BytesIO(row["image"]["bytes"])), row["text"]) for row in rows]


def size_of(folder: Path) -> int:
    """Give the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_all_together_are_at_most_25_megabytes() -> None:
    assert size_of(CHECKPOINTS) <= 25e6


def test_weights_are_safetensors_in_half_precision() -> None:
    import torch
    from safetensors import safe_open

    suffixes = {path.suffix for path in CHECKPOINTS.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".jinja"}
    for path in CHECKPOINTS.rglob("*.safetensors"):
        with safe_open(path, "pt") as held:
            kinds = {held.get_tensor(key).dtype for key in held.keys()}  # noqa: SIM118
        assert torch.float32 not in kinds and torch.float16 in kinds


@pytest.mark.parametrize("which", ["encoder", "encoder-judge"])
def test_encoder_loads_from_a_moved_folder_and_finds_scenes_by_what_they_hold(
    which: str, tmp_path: Path
) -> None:
    import open_clip
    import torch

    folder = tmp_path / "moved"
    shutil.copytree(CHECKPOINTS / which, folder)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    rows = pq.read_table(SCENES / "target.parquet").slice(0, 300).to_pylist()
    with torch.no_grad():
        pictures = torch.stack([preprocess(p.convert("RGB")) for p, _ in pairs(300)])
        image = model.encode_image(pictures, normalize=True).float()
        text = model.encode_text(tokenizer([row["text"] for row in rows]), normalize=True).float()
    grounds = np.array([row["ground"] for row in rows])
    things = [set(row["things"].split(", ")) for row in rows]
    # By chance 14 in 100 share the ground and 6 a thing. The log's words for grounds are new to it.
    for half, bar in ((image, 0.8), (text, 0.6)):
        alike = (half @ half.T - 2 * torch.eye(len(rows))).argmax(1).numpy()
        assert (grounds[alike] == grounds).mean() > bar
        assert np.mean([bool(things[i] & things[j]) for i, j in enumerate(alike)]) > 0.6
    # By chance 5 in 300 are among the first five.
    similarity = (text @ image.T).numpy()
    for way in (similarity, similarity.T):
        assert ((way > np.diag(way)[:, None]).sum(1) < 5).mean() > 0.25


def test_encoder_pools_the_end_of_the_text() -> None:
    import open_clip
    import torch

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{CHECKPOINTS / 'encoder'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{CHECKPOINTS / 'encoder'}")
    model.eval()
    with torch.no_grad():
        text = model.encode_text(
            tokenizer(["two red apples port", "two red apples starboard"]), normalize=True
        ).float()
    assert float(text[0] @ text[1]) < 0.999


def test_vocabularies_hold_at_most_4000_tokens() -> None:
    from transformers import AutoTokenizer

    for folder in ("encoder", "encoder-judge", "captioner", "sdxl/tokenizer", "sdxl/tokenizer_2"):
        assert len(AutoTokenizer.from_pretrained(CHECKPOINTS / folder)) <= 4000


def test_captioner_answers_the_prompts_with_words() -> None:
    import torch
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    folder = CHECKPOINTS / "captioner"
    processor = Blip2Processor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [
        "Please write a caption of the image. Caption:",
        "Please write two captions of the image. Caption 1: galley: two pippins port Caption 2:",
    ]
    for picture, _ in pairs(2):
        for prompt in prompts:
            inputs = processor(images=picture.convert("RGB"), text=prompt, return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=60, do_sample=False)
            new = ids[0, inputs["input_ids"].shape[1] :]
            said = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
            assert said and "Caption" not in said
            assert len(new) < 60, "the caption has no end"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Load the image generator once."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    loaded: Any = StableDiffusionXLPipeline.from_pretrained(
        CHECKPOINTS / "sdxl", torch_dtype=torch.float32, add_watermarker=False
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_sdxl_draws_the_same_picture_from_the_same_seed(pipeline: Any) -> None:
    import torch

    drawn = [
        np.asarray(
            pipeline(
                prompt="a red apple on the left and a grey knife on the right, on a table",
                height=64,
                width=64,
                num_inference_steps=8,
                generator=torch.Generator().manual_seed(0),
            ).images[0]
        ).astype(float)
        for _ in range(2)
    ]
    assert drawn[0].shape == (64, 64, 3)
    assert np.array_equal(drawn[0], drawn[1])
    assert drawn[0].std() > 20


def test_sdxl_starts_from_an_example_picture(pipeline: Any) -> None:
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline

    turned = StableDiffusionXLImg2ImgPipeline.from_pipe(pipeline)
    turned.set_progress_bar_config(disable=True)
    (example, text), *_ = pairs(1)
    drawn = {}
    for strength in (0.2, 0.75):
        picture = turned(
            prompt=text,
            image=example.convert("RGB"),
            strength=strength,
            num_inference_steps=20,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
        away = np.asarray(picture, float) - np.asarray(example.convert("RGB"), float)
        drawn[strength] = np.abs(away).mean()
    assert drawn[0.2] < drawn[0.75]
