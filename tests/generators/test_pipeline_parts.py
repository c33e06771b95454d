"""Other parts than a checkpoint's own: schedulers, LoRAs and VAEs, and what none of them takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from generators.diffusion import DiffusersSettings
from generators.sdxl_settings import SdxlSettings
from tests.generators.sdxl_requests import alike, any_pipeline, requests_for


def test_another_scheduler_takes_the_steps_with_its_own_options(
    stable_diffusion: Path, examples: Callable[..., Any]
) -> None:
    row = requests_for(examples, (0,))
    plain = any_pipeline(stable_diffusion).generate(row)
    scheduler = {"name": "LCMScheduler", "options": {"original_inference_steps": 10}}
    few = any_pipeline(stable_diffusion, scheduler=scheduler, guidance_scale=1.0)
    (answer,) = few.generate(row)
    assert type(few._pipe.scheduler).__name__ == "LCMScheduler"
    assert few._pipe.scheduler.config.original_inference_steps == 10
    assert few._pipe.scheduler.config.beta_schedule == "scaled_linear"
    assert not alike(answer.candidates[0], plain[0].candidates[0].image)


def lora_file(
    folder: Path, model: Path, layers: dict[str, str], alpha: float | None = None
) -> Path:
    """Low-rank changes of layers of the UNet, named as trainers do."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    random, weights = torch.Generator().manual_seed(7), {}
    for layer, style in layers.items():
        shape = unet.get_submodule(layer).weight.shape
        up, down = {"peft": ("lora_B", "lora_A"), "diffusers": ("lora.up", "lora.down")}[style]
        rest = (1,) * (len(shape) - 2)
        weights[f"unet.{layer}.{down}.weight"] = torch.randn(2, *shape[1:], generator=random) * 0.3
        weights[f"unet.{layer}.{up}.weight"] = torch.randn(shape[0], 2, *rest, generator=random)
        if alpha is not None:
            weights[f"unet.{layer}.alpha"] = torch.tensor(alpha)
    folder.mkdir()
    save_file(weights, folder / "pytorch_lora_weights.safetensors")
    return folder


ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"


def test_a_lora_is_merged_by_its_weight_into_the_layers_that_it_names(
    tmp_path: Path, stable_diffusion: Path, examples: Callable[..., Any]
) -> None:
    folder = lora_file(
        tmp_path / "lora", stable_diffusion, {ATTENTION: "peft", CONVOLUTION: "diffusers"}
    )
    row = requests_for(examples, (0,))
    (plain,) = any_pipeline(stable_diffusion).generate(row)
    (none,) = any_pipeline(
        stable_diffusion, {"lora": folder}, lora={"model": "l", "weight": 0.0}
    ).generate(row)
    merged = any_pipeline(stable_diffusion, {"lora": folder}, lora={"model": "l", "weight": 0.5})
    (half,) = merged.generate(row)
    assert alike(none.candidates[0], plain.candidates[0].image)
    assert not alike(half.candidates[0], plain.candidates[0].image)
    from safetensors.torch import load_file

    factors = load_file(folder / "pytorch_lora_weights.safetensors")
    unet = any_pipeline(stable_diffusion)
    unet.load()
    before = unet._pipe.unet.get_submodule(ATTENTION).weight
    change = factors[f"unet.{ATTENTION}.lora_B.weight"] @ factors[f"unet.{ATTENTION}.lora_A.weight"]
    after = merged._pipe.unet.get_submodule(ATTENTION).weight
    torch.testing.assert_close(after, before + 0.5 * change)


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ({"unet.no.such.lora_A.weight": (2, 4), "unet.no.such.lora_B.weight": (4, 2)}, "no layer"),
        ({f"unet.{ATTENTION}.lora_A.weight": (2, 64)}, "no two factors"),
        ({f"unet.{ATTENTION}.hada_w1_a": (2, 64)}, "no low-rank change"),
    ],
)
def test_a_lora_of_another_model_or_kind_is_refused(
    layers: dict[str, Any], told: str, tmp_path: Path, stable_diffusion: Path
) -> None:
    save_file({n: torch.zeros(shape) for n, shape in layers.items()}, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=told):
        any_pipeline(stable_diffusion, {"lora": tmp_path}, lora="l").load()


def test_another_vae_decodes(
    tmp_path: Path, stable_diffusion: Path, sdxl: Path, examples: Callable[..., Any]
) -> None:
    shutil.copytree(sdxl / "vae", tmp_path / "vae")
    row = requests_for(examples, (0,))
    (plain,) = any_pipeline(stable_diffusion).generate(row)
    for folder, vae in ((sdxl, {"model": "v", "subfolder": "vae"}), (tmp_path / "vae", "v")):
        (other,) = any_pipeline(stable_diffusion, {"vae": folder}, vae=vae).generate(row)
        assert not alike(other.candidates[0], plain.candidates[0].image)
    settings = DiffusersSettings(model="m", vae={"model": "v", "subfolder": "vae"})
    assert settings.models() == {"model": ("m", None), "vae": ("v", None)}
    listed = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors", "unet/x.safetensors"]
    assert settings.files("vae", listed) == listed[:2]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scheduler": "NoScheduler"}, "must be a scheduler class of diffusers; got 'NoScheduler'"),
        ({"scheduler": "UNet2DConditionModel"}, "must be a scheduler class"),
        ({"scheduler": {"name": "LCMScheduler", "options": {"spacing": 1}}}, "got 'spacing'"),
        ({"lora": {"model": "l", "weight_name": "l.bin"}}, r"must be a \.safetensors file"),
        ({"steps": 2, "strength": 0.4, "grounding": "img2img"}, "steps x strength"),
        ({"strength": 1, "grounding": "img2img"}, "less than 1"),
        (
            {"model": "stabilityai/sdxl-turbo", "guidance_scale": 7},
            "guidance_scale must be at most",
        ),
        ({"model": "o/m", "lora": "ByteDance/SDXL-Lightning"}, "has learned it in"),
    ],
)
def test_settings_that_no_scheduler_or_model_takes_are_refused_in_the_config(
    values: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        DiffusersSettings.model_validate({"model": "m"} | values)


@pytest.mark.parametrize(
    ("family", "values", "told"),
    [
        ("kontext", {"grounding": "img2img"}, "set it to reference, prompt or none"),
        ("stable_diffusion", {"grounding": "reference"}, "takes no reference pictures"),
        ("kontext", {"arguments": {"prompt": "x"}}, "got 'prompt'"),
        ("stable_diffusion", {"arguments": {"true_cfg": 2}}, "got 'true_cfg'"),
        ("stable_diffusion_3", {"scheduler": "DDIMScheduler"}, "made for FlowMatchEuler"),
        ("stable_diffusion", {"scheduler": "FlowMatchEulerDiscreteScheduler"}, "made for DDIM"),
        (
            "stable_diffusion",
            {"scheduler": {"name": "LCMScheduler"}, "steps": 60},
            "steps 60: LCMScheduler can't take them",
        ),
        (
            "stable_diffusion",
            {"steps": None, "strength": 0.01, "grounding": "img2img"},
            "50 x 0.01",
        ),
        (
            "stable_diffusion_3",
            {"steps": 4, "strength": 0.9, "grounding": "img2img"},
            r"nothing of the example is kept; got 4 x \(1 - 0.9\)",
        ),
    ],
)
def test_what_a_pipeline_cannot_do_is_refused_when_it_is_loaded(
    family: str, values: dict[str, Any], told: str, request: Any
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        any_pipeline(request.getfixturevalue(family), **values).load()
    assert "\n" not in str(caught.value)


def test_a_few_step_lora_needs_the_timesteps_that_it_has_learned(
    tmp_path: Path, stable_diffusion: Path
) -> None:
    folder = lora_file(tmp_path / "lora", stable_diffusion, {ATTENTION: "peft"})
    values = {"lora": "o/lightning", "guidance_scale": 0.0}
    with pytest.raises(ValueError, match="timestep_spacing: trailing"):
        any_pipeline(stable_diffusion, {"lora": folder}, **values).load()
    scheduler = {"name": "DDIMScheduler", "options": {"timestep_spacing": "trailing"}}
    any_pipeline(stable_diffusion, {"lora": folder}, scheduler=scheduler, **values).load()


def test_identity_holds_the_parts_that_are_used_alone() -> None:
    plain = SdxlSettings(grounding="none").identity()
    assert not {"vae", "scheduler", "lora", "ip_adapter", "strength"} & set(plain)
    told = SdxlSettings(vae="v", lora="l", scheduler="LCMScheduler").identity()  # type: ignore[arg-type]
    assert (told["vae"]["model"], told["lora"]["weight"]) == ("v", 1.0)
    assert told["scheduler"] == {"name": "LCMScheduler", "options": {}}


def test_a_lora_without_a_name_is_found_where_there_is_one_alone() -> None:
    settings = DiffusersSettings(model="m", lora="l")  # type: ignore[arg-type]
    assert settings.files("lora", ["a.safetensors", "README.md"]) == ["a.safetensors"]
    two = ["a.safetensors", "b.safetensors"]
    with pytest.raises(ValueError, match="which holds a.safetensors, b.safetensors; got None"):
        settings.files("lora", two)
    assert settings.files("lora", [*two, "pytorch_lora_weights.safetensors"]) == [
        "pytorch_lora_weights.safetensors"
    ]
