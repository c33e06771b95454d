"""What captioners by checkpoints of transformers share: precision, and scores that are not finite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from generators.base import CaptionRequest
from generators.checkpoints import own_dtype
from generators.device import resolve_dtype

CASES = ("blip2-opt", "blip2-t5", "vlm-llava", "vlm-qwen2_vl")


@pytest.mark.parametrize(
    ("own", "has_bfloat16", "expected"),
    [
        ("bfloat16", True, torch.bfloat16),
        ("float16", True, torch.float16),
        ("float32", True, torch.bfloat16),
        (None, True, torch.bfloat16),
        ("bfloat16", False, torch.float32),
        ("float16", False, torch.float16),
        ("float32", False, torch.float16),
    ],
)
def test_auto_is_the_checkpoints_own_half_precision_on_a_gpu(
    own: str | None, has_bfloat16: bool, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: has_bfloat16)
    assert resolve_dtype("auto", torch.device("cuda"), own) == expected
    assert resolve_dtype("auto", torch.device("cpu"), own) == torch.float32
    assert resolve_dtype("float16", torch.device("cuda"), own) == torch.float16


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_a_checkpoint_tells_what_it_is_written_in(
    case: str, dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from transformers import AutoModelForImageTextToText

    kind, _, family = case.partition("-")
    folder = request.getfixturevalue(f"blip2_{family}" if kind == "blip2" else family)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    assert own_dtype(tmp_path) == dtype


@pytest.mark.parametrize("case", CASES)
def test_scores_that_are_not_finite_are_an_error_by_name(
    case: str,
    make: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    pictures: Callable[..., Image.Image],
) -> None:
    """What is past the range of float16, as parts of Qwen2-VL are, would read as "!!!!"."""
    kind, _, family = case.partition("-")
    fixture = f"blip2_{family}" if kind == "blip2" else family
    folder = tmp_path / "hot"
    shutil.copytree(request.getfixturevalue(fixture), folder)
    weights = load_file(folder / "model.safetensors")
    ends = (
        "decoder.final_layer_norm.weight",
        "language_model.model.norm.weight",
        "model.norm.weight",
    )
    (name,) = [name for name in weights if name.endswith(ends)]
    weights[name] = weights[name] * 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    asked = CaptionRequest("row", pictures(0), (), (1, 2))
    sound = make("captioner", case, dtype="bfloat16")
    sound.paths = {"model": folder}
    assert sound.generate([asked])[0].error is None
    hot = make("captioner", case, dtype="float16")
    hot.paths = {"model": folder}
    (answer,) = hot.generate([asked])
    assert answer.candidates == ()
    assert answer.error == (
        "the model's scores are not finite in float16; set dtype to bfloat16 or float32"
    )
