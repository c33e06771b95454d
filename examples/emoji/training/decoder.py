"""Stage `decoder`: the autoencoder's decoder alone, sharpened on the style that is drawn.

The encoder stays as it is, so that the U-Net's latents keep their meaning while it learns. A
little noise on the latents teaches the decoder to forgive the U-Net's errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.emoji.captions import in_target, load_concepts
from examples.emoji.pictures import TRAINING_STYLES, load_pictures
from examples.emoji.training import augment
from examples.emoji.training.loop import Schedule, train
from examples.emoji.training.unet import STYLE
from examples.emoji.training.vae import reconstruction_loss, write_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 24
NOISE = 0.1


def train_decoder(work: Path, out: Path, seed: int, steps: int, minutes: float) -> None:
    """Train the decoder and put it into `out/sdxl/vae`, in half precision."""
    import copy

    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(work / "models" / "vae").float()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    concepts = load_concepts()
    parts, weights = [], []
    for style in TRAINING_STYLES:
        rows, pictures = load_pictures(style)
        parts.append(augment.to_tensor(pictures))
        drawn = np.asarray([in_target(concepts[i]) for i in rows]) & (style == STYLE)
        weights.append(np.where(drawn, 1.0, 0.12))
    x, chance = torch.cat(parts), np.concatenate(weights)
    chance /= chance.sum()

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        batch = x[rng.choice(len(x), BATCH, p=chance)]
        batch = augment.move(batch, rng, 0, (0.97, 1.02), 0.01) * 2 - 1
        with torch.no_grad():
            latents = model.encode(batch).latent_dist.mean
            spread = latents.std((0, 2, 3), keepdim=True)
            latents = latents + NOISE * spread * torch.randn_like(latents)
        error = reconstruction_loss(model.decode(latents).sample, batch)
        return error, {}

    def export(model: nn.Module) -> None:
        sharpened: Any = copy.deepcopy(model)
        folder = out / "sdxl" / "vae"
        if folder.is_dir():
            held = AutoencoderKL.load_config(folder)
            scales = {key: held[key] for key in ("latents_mean", "latents_std")}
            sharpened.register_to_config(**scales)
        write_folder(sharpened.half(), folder)

    schedule = Schedule(steps, 1.5e-3, minutes, warmup=50, average=0.99, weight_decay=0.0)
    train("decoder", vae, loss, schedule, work, seed, export)
