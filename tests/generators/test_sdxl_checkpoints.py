"""SDXL checkpoints: read in half precision, and never a pickle or code that comes along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generators.sdxl_settings import SdxlSettings
from tests.generators import tiny_sdxl
from tests.generators.sdxl_requests import generator, requests_for
from tests.pickles import telling_pickle


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder_2"])
def test_a_part_in_a_pickle_is_refused_unread(part: str, tmp_path: Path, sdxl: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(sdxl, folder)
    for weights in (folder / part).glob("*.safetensors"):
        weights.unlink()
    marker = tmp_path / "was-read"
    (folder / part / "diffusion_pytorch_model.bin").write_bytes(telling_pickle(marker))
    with pytest.raises(ValueError, match="weights must be safetensors"):
        generator(folder).load()
    assert not marker.exists()


def test_an_adapters_image_encoder_in_a_pickle_is_refused_unread(
    tmp_path: Path, sdxl: Path, ip_adapter: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(ip_adapter, folder)
    encoder = folder / "sdxl_models" / "image_encoder"
    (encoder / "model.safetensors").unlink()
    marker = tmp_path / "was-read"
    (encoder / "pytorch_model.bin").write_bytes(telling_pickle(marker))
    with pytest.raises(ValueError, match="weights must be safetensors"):
        generator(sdxl, folder, grounding="ip_adapter").load()
    assert not marker.exists()
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        SdxlSettings.model_validate({"ip_adapter": {"weight_name": "ip-adapter_sdxl.bin"}})


def test_code_beside_the_weights_does_not_run(tmp_path: Path, sdxl: Path) -> None:
    folder = tmp_path / "with-code"
    shutil.copytree(sdxl, folder)
    marker = tmp_path / "ran"
    (folder / "unet" / "own_unet.py").write_text(f"open({str(marker)!r}, 'w')\n")
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["own_unet", "OwnUNet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises((ValueError, OSError, AttributeError)):
        generator(folder).load()
    assert not marker.exists()


def test_half_precision_files_are_read_where_there_are_no_others(
    tmp_path: Path, examples: Callable[..., Any]
) -> None:
    folder = tiny_sdxl.sdxl(tmp_path / "half", variant="fp16")
    (answer,) = generator(folder, steps=1).generate(requests_for(examples, (0,)))
    assert answer.candidates[0].image is not None


def test_half_precision_is_read_where_single_is_there_in_part(
    tmp_path: Path, sdxl: Path, examples: Callable[..., Any]
) -> None:
    folder = tiny_sdxl.sdxl(tmp_path / "half", variant="fp16")
    for weights in (sdxl / "unet").glob("*.safetensors"):
        shutil.copy(weights, folder / "unet")
    (answer,) = generator(folder, steps=1).generate(requests_for(examples, (0,)))
    assert answer.candidates[0].image is not None
