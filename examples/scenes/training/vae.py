"""Stage `vae`: an `AutoencoderKL` from 64 px to 8 x 8 latents of 32 channels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.grounds import SIDE
from examples.scenes.training import augment
from examples.scenes.training.loop import Schedule, train
from examples.scenes.training.means import Means, draw_seed
from examples.scenes.training.pool import load_pool

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import nn

LATENT_CHANNELS = 32
BATCH = 16


def new_vae() -> AutoencoderKL:
    """Make the untrained autoencoder."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 48),
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        force_upcast=False,
        scaling_factor=1.0,
    )


def standardise(vae: AutoencoderKL, mean: torch.Tensor, deviation: torch.Tensor) -> None:
    """Have its latents come out, and be taken, less the `mean` and over the `deviation` [channels].

    Its 1 x 1 convolutions do it: diffusers' pipelines know such moments of four channels alone.
    """
    import torch

    held: tuple[Any, Any] = (vae.quant_conv, vae.post_quant_conv)
    into, out_of = held
    with torch.no_grad():
        into.bias[: len(mean)] -= mean
        into.bias[: len(mean)] /= deviation
        into.weight[: len(mean)] /= deviation[:, None, None, None]
        into.bias[len(mean) :] -= 2 * deviation.log()
        out_of.bias += out_of.weight[:, :, 0, 0] @ mean
        out_of.weight *= deviation[None, :, None, None]


def reconstruction_loss(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Sum L1, squared error and L1 of the gradients, so that edges stay sharp."""
    difference = out - x
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    return difference.abs().mean() + difference.square().mean() + across + down


def write_folder(model: nn.Module, folder: Path) -> None:
    """Save a diffusers or transformers model as safetensors, swapped in whole."""
    beside = folder.with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)  # type: ignore[operator]
    settings = beside / "config.json"
    held = json.loads(settings.read_text("utf-8"))
    # Where it was loaded from says something of this machine alone.
    held.pop("_name_or_path", None)
    settings.write_text(json.dumps(held, indent=2) + "\n", "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def train_vae(work: Path, seed: int, means: Means) -> AutoencoderKL:
    """Train the autoencoder on a pool of scenes and write `work/models/vae`."""
    import torch
    from diffusers import AutoencoderKL

    pool = load_pool(work, means.scenes)
    take = means.hold(pool.pictures)

    def batch(rng: np.random.Generator) -> dict[str, Any]:
        rows = np.sort(rng.choice(len(pool.pictures), means.rows(BATCH)))
        return {"rows": rows, "seed": draw_seed(rng)}

    def loss(model: Any, given: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rng = np.random.default_rng(given["seed"])
        x = augment.move(take(given["rows"]), rng, 0, (0.95, 1.1), 0.03, True, "edge")
        wanted = augment.recolour(x, rng, 0.4) * 2 - 1
        # Half precision would show as bands of colour.
        with torch.autocast(x.device.type, enabled=False):
            posterior = model.encode(wanted).latent_dist
            error = reconstruction_loss(model.decode(posterior.sample()).sample, wanted)
            divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return error + 5e-4 * divergence, {"kl": divergence.detach()}

    def export(model: nn.Module) -> None:
        write_folder(model, work / "models" / "vae")

    schedule = Schedule(
        means.steps, 3e-3, means.minutes, warmup=100, average=0.995, weight_decay=0.0
    )
    how = means.alone().how()
    trained = train("vae", new_vae(), loss, schedule, work, seed, export, batch=batch, **how)
    assert isinstance(trained, AutoencoderKL)
    return trained
