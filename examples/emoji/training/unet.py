"""Stage `unet`: a `StableDiffusionXLPipeline` of 64 px on the stage `vae`'s latents.

The net predicts the clean latent (prediction type `sample`): what it gives at full noise is then
the mean picture of a caption, the part that a small net learns first. The second text encoder
is the text tower of the stage `encoder`, and both stay as they are. At high noise the U-Net learns
one style alone: a caption then has one picture, which a small net learns in far fewer steps. At
lower noise it also sees other pictures, so that what it starts from counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.emoji.captions import Concept, in_target, load_concepts
from examples.emoji.pictures import TRAINING_STYLES, load_pictures
from examples.emoji.training import augment
from examples.emoji.training.loop import Schedule, train
from examples.emoji.training.painter import (
    SCHEDULER,
    adopt_text_tower,
    encode_prompts,
    new_painter,
    write_pipeline,
)
from examples.emoji.training.texts import CONTEXT, learn_tokenizer, wording

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import nn

STYLE = "twemoji"
BATCH = 64
WITHOUT_TEXT = 0.08
WORDINGS = 6
# Below these timesteps a batch holds other pictures of a caption, and of other captions.
STRANGE_BELOW = 760
MISLED_BELOW = 500


def encode_pictures(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    """Give the mean latents (n, c, 8, 8) of uint8 pictures."""
    import torch

    x = augment.to_tensor(pictures) * 2 - 1
    with torch.no_grad():
        return torch.cat([vae.encode(part).latent_dist.mean for part in x.split(64)])


def strange_latents(
    vae: AutoencoderKL, row: np.ndarray, mean: torch.Tensor, deviation: torch.Tensor
) -> tuple[np.ndarray, torch.Tensor]:
    """Encode pictures that their captions alone do not foretell: another style, moved, recoloured.

    A net that only ever sees one picture of a caption learns to draw that one, whatever it is
    given to start from, and an example's picture would change nothing.

    Returns
    -------
    rows : ndarray of shape (m,)
        Positions in `row`.
    latents : Tensor of shape (m, 4, 8, 8)
    """
    import torch

    place = {concept: i for i, concept in enumerate(row.tolist())}
    rng = np.random.default_rng(4)
    rows, latents = [], []
    for style in TRAINING_STYLES:
        held, pictures = load_pictures(style)
        keep = np.asarray([i in place for i in held])
        for times in range(2):
            x = augment.to_tensor(pictures[keep])
            if style == STYLE or times:
                x = augment.recolour(augment.move(x, rng, 10, (0.75, 1.1), 0.06), rng, 1.0)
            with torch.no_grad():
                parts = [vae.encode(part * 2 - 1).latent_dist.mean for part in x.split(64)]
            latents.append((torch.cat(parts) - mean[:, None, None]) / deviation[:, None, None])
            rows.append(np.asarray([place[i] for i in held[keep]]))
    return np.concatenate(rows), torch.cat(latents)


def train_unet(work: Path, out: Path, seed: int, steps: int, minutes: float) -> None:
    """Train the U-Net and write `out/sdxl`."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler

    tokenizer = learn_tokenizer(work / "tokenizer")
    concepts = load_concepts()
    vae = AutoencoderKL.from_pretrained(work / "models" / "vae").float().eval()
    row, pictures = load_pictures(STYLE)
    keep = np.asarray([in_target(concepts[i]) for i in row])
    row, latent = row[keep], encode_pictures(vae, pictures[keep])
    mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
    latent = (latent - mean[:, None, None]) / deviation[:, None, None]
    latent = latent.contiguous(memory_format=torch.channels_last)
    strange_row, strange_latent = strange_latents(vae, row, mean, deviation)
    scheduler = DDIMScheduler(**SCHEDULER)
    alphas = scheduler.alphas_cumprod
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(BATCH, -1)

    model, hidden, pooled = painter_with_features(out, tokenizer, [concepts[i] for i in row])

    def loss(net: nn.Module, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(row), BATCH)
        timesteps = np.where(
            rng.random(BATCH) < 0.4, rng.integers(600, 1000, BATCH), rng.integers(0, 1000, BATCH)
        )
        strange = (timesteps < STRANGE_BELOW) & (rng.random(BATCH) < 0.6)
        drawn = rng.integers(0, len(strange_latent), BATCH)
        clean = torch.where(
            torch.from_numpy(strange)[:, None, None, None], strange_latent[drawn], latent[chosen]
        )
        astray = (timesteps < MISLED_BELOW) & (rng.random(BATCH) < 0.3)
        chosen = np.where(strange & ~astray, strange_row[drawn], chosen)
        # The first wording of each concept is its name.
        wordings = np.where(rng.random(BATCH) < 0.6, 0, rng.integers(0, WORDINGS, BATCH))
        told = torch.from_numpy(rng.random(BATCH) >= WITHOUT_TEXT).float()
        t = torch.from_numpy(timesteps)
        alpha = alphas[t][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn_like(clean)
        conditions = {
            "text_embeds": pooled[wordings, chosen] * told[:, None],
            "time_ids": time_ids,
        }
        states = hidden[wordings, chosen] * told[:, None, None]
        result = net(noisy, t, states, added_cond_kwargs=conditions).sample
        errors = (result - clean).square().mean((1, 2, 3))
        weight = (1 / (1 - alpha[:, 0, 0, 0]).clamp(min=0.2)).float()
        kinds = {"late": t > 900, "strange": torch.from_numpy(strange)}
        shown = {key: errors.detach()[rows] for key, rows in kinds.items()}
        figures = {key: float(part.mean()) if len(part) else 0.5 for key, part in shown.items()}
        return (weight * errors).mean(), figures

    def export(net: nn.Module) -> None:
        write_pipeline({**model, "unet": net}, vae, tokenizer, out / "sdxl")

    schedule = Schedule(steps, 1.2e-3, minutes, warmup=200, average=0.995, weight_decay=0.01)
    train("unet", model["unet"], loss, schedule, work, seed, export)


def painter_with_features(
    out: Path, tokenizer: Any, concepts: list[Concept]
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """Make the modules, and the text features of several wordings of each concept.

    Returns
    -------
    modules : dict
        `unet`, `text_encoder`, `text_encoder_2`; the last is the encoder's text tower.
    hidden : Tensor of shape (wordings, n, tokens, 160)
    pooled : Tensor of shape (wordings, n, 128)
    """
    import torch
    from safetensors.torch import load_file

    torch.manual_seed(4)
    modules = dict(new_painter(tokenizer).items())  # type: ignore[operator]
    modules["unet"].to(memory_format=torch.channels_last)
    weights = load_file(out / "encoder" / "open_clip_model.safetensors")
    adopt_text_tower(modules["text_encoder_2"], weights)
    scale_pooled(modules["text_encoder_2"], tokenizer)
    rng = np.random.default_rng(4)
    hidden, pooled = [], []
    for k in range(WORDINGS):
        texts = [concept.name if k == 0 else wording(concept, rng, 0.1) for concept in concepts]
        tokens = tokenizer(
            texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            states, embedding = encode_prompts(modules, tokens)
        hidden.append(states)
        pooled.append(embedding)
    return modules, torch.stack(hidden), torch.stack(pooled)


def scale_pooled(tower: Any, tokenizer: Any) -> None:
    """Scale the projection so that pooled embeddings of names vary by about one in each entry."""
    import torch

    names = [concept.name for concept in load_concepts()[::10]]
    tokens = tokenizer(
        names, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        pooled = tower(tokens).text_embeds
        tower.text_projection.weight /= pooled.std(0).mean()
