"""Stage `vae`: an `AutoencoderKL` from 64 px to 8 x 8 latents of eight channels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.grounds import SIDE
from examples.scenes.training import augment
from examples.scenes.training.loop import Schedule, train
from examples.scenes.training.pool import load_pool

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import nn

LATENT_CHANNELS = 8
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


def train_vae(work: Path, seed: int, steps: int, minutes: float, scenes: int) -> AutoencoderKL:
    """Train the autoencoder on a pool of scenes and write `work/models/vae`."""
    from diffusers import AutoencoderKL

    pool = load_pool(work, scenes)

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x = augment.to_tensor(pool.pictures[np.sort(rng.choice(len(pool.pictures), BATCH))])
        x = augment.recolour(augment.move(x, rng, 0, (0.95, 1.1), 0.03, True, "edge"), rng, 0.4)
        batch = x * 2 - 1
        posterior = model.encode(batch).latent_dist
        error = reconstruction_loss(model.decode(posterior.sample()).sample, batch)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return error + 5e-4 * divergence, {"kl": float(divergence.detach())}

    def export(model: nn.Module) -> None:
        write_folder(model, work / "models" / "vae")

    schedule = Schedule(steps, 3e-3, minutes, warmup=100, average=0.995, weight_decay=0.0)
    model = new_vae()
    trained = train("vae", model, loss, schedule, work, seed, export)
    assert isinstance(trained, AutoencoderKL)
    return trained
