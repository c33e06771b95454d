"""The image generator that knows photographs alone: SDXL's format at 128 px on a tiny autoencoder.

U-Net and both text encoders learn together what the noise was (velocity: Salimans and Ho 2022), on
latents of views of the photographs that are encoded once.
"""

from __future__ import annotations

import itertools
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.recipes.gap.photographs import (
    held_out,
    pixels_of,
    read_learned,
    time_left,
    view,
)
from examples.recipes.gap.words import tidied
from examples.scenes.training.loop import Schedule, train
from examples.scenes.training.painter import SCHEDULER, encode_prompts, text_config, write_pipeline
from examples.scenes.training.texts import learn_clip_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

SIDE, QUICK_SIDE, CONTEXT, VOCABULARY = 128, 64, 64, 4000
STEPS, BATCH, SEED, RATE = 30000, 32, 2, 4e-4
# Of a U-Net, and of the two text encoders.
WIDTHS, TEXT_WIDTHS, POOLED = (96, 192), (64, 192), 192
QUICK = {"widths": (32, 32), "text_widths": (32, 32), "pooled": 32}
WITHOUT_TEXT = 0.1
ENCODED_AT_ONCE = 64
# Steps from one look at the photographs kept out to the next.
LOOK_EVERY = 50
VELOCITY = {**SCHEDULER, "prediction_type": "v_prediction"}


def new_painter(
    tokenizer: Any,
    channels: int,
    side: int,
    widths: tuple[int, ...] = WIDTHS,
    text_widths: tuple[int, int] = TEXT_WIDTHS,
    pooled: int = POOLED,
) -> nn.ModuleDict:
    """The untrained U-Net for latents [n, channels, side, side], and its two text encoders."""
    from diffusers import UNet2DConditionModel
    from torch import nn
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=16,
        dropout=0.1,
        cross_attention_dim=sum(text_widths),
        # What diffusers calls so is the number of heads.
        attention_head_dim=4,
        transformer_layers_per_block=1,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=pooled + 6 * 8,
    )
    first, second = (text_config(tokenizer, width, pooled, CONTEXT) for width in text_widths)
    return nn.ModuleDict(
        {
            "unet": unet,
            "text_encoder": CLIPTextModel(first),
            "text_encoder_2": CLIPTextModelWithProjection(second),
        }
    )


def encode_views(
    vae: Any, pixels: torch.Tensor, side: int, views: int, device: str
) -> torch.Tensor:
    """Latents of views of a side, float16 [views, n, channels, h, w] on the device."""
    import torch

    rng, found = np.random.default_rng(SEED), []
    vae = vae.to(device)
    with torch.no_grad():
        for number in range(views):
            parts = []
            for some in pixels.split(ENCODED_AT_ONCE):
                x = view(some.to(device), side, number, rng) * 2 - 1
                parts.append(vae.encode(x).latent_dist.mean.half())
            found.append(torch.cat(parts))
            logger.info("images: view %d of %d encoded", number + 1, views)
    vae.to("cpu")
    return torch.stack(found)


def standardise(vae: Any, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Note in the autoencoder's config what its channels are standardised by; gives both."""
    sample = latents[0, :4000].float()
    mean, deviation = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp(min=1e-3)
    vae.register_to_config(
        channel_means=mean.cpu().tolist(), channel_deviations=deviation.cpu().tolist()
    )
    return mean[:, None, None], deviation[:, None, None]


def token_rows(tokenizer: Any, captions: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int64 [all captions, context], and where each photograph's begin, int [n + 1]."""
    texts = [tidied(text) for own in captions for text in own]
    tokens = tokenizer(
        texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="np"
    ).input_ids
    return tokens.astype(np.int64), np.cumsum([0, *(len(own) for own in captions)])


def train_painter(
    folder: Path,
    autoencoder: Path,
    steps: int,
    minutes: float,
    batch: int = BATCH,
    rate: float = RATE,
    views: int = 2,
    device: str = "cpu",
    quick: bool = False,
    save_every: float = 180.0,
) -> Path:
    """Train on a folder's learned half, and write the pipeline's folder `images/` there.

    Parameters
    ----------
    folder : Path
        As `worlds.make` or `photographs.pack` wrote it; state is kept under `work/`.
    autoencoder : Path
        Folder of the weights; see `autoencoder.open_autoencoder`.
    minutes : float
        Time bound, what is prepared counted in.
    views : int
        Of each photograph, encoded beforehand; see `photographs.view`.
    quick : bool
        A tiny U-Net for smaller pictures, for tests.
    """
    import torch
    from diffusers import DDIMScheduler

    from examples.recipes.gap.autoencoder import open_autoencoder

    begun = time.monotonic()
    work, out = folder / "work", folder / "images"
    side = QUICK_SIDE if quick else SIDE
    vae = open_autoencoder(autoencoder)
    pictures, captions = read_learned(folder)
    tokenizer = learn_clip_tokenizer(
        (tidied(text) for own in captions for text in own),
        work / "clip-tokenizer",
        VOCABULARY,
        CONTEXT,
    )
    tokens, starts = token_rows(tokenizer, captions)
    logger.info("images: %d photographs are read", len(pictures))
    latents = encode_views(vae, pixels_of(pictures), side, views, device)
    mean, deviation = standardise(vae, latents)
    taught = len(pictures) - held_out(len(pictures))
    torch.manual_seed(SEED)
    sizes: dict[str, Any] = QUICK if quick else {}
    model = new_painter(tokenizer, latents.shape[2], latents.shape[-1], **sizes)
    model["unet"].to(memory_format=torch.channels_last)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.items()}
    logger.info("images: millions of parameters: %s", {k: v / 1e6 for k, v in counts.items()})
    alphas = DDIMScheduler(**VELOCITY).alphas_cumprod.to(device)
    time_ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=device)

    def draw(rng: np.random.Generator, rows: np.ndarray, without: float) -> dict[str, np.ndarray]:
        own = starts[rows] + np.floor(rng.random(len(rows)) * (starts[rows + 1] - starts[rows]))
        return {
            "rows": rows,
            "views": rng.integers(0, views, len(rows)),
            "tokens": tokens[own.astype(np.int64)],
            "asked": (rng.random(len(rows)) >= without).astype(np.float32),
            "timesteps": rng.integers(0, len(alphas), len(rows)),
        }

    def prepare(rng: np.random.Generator) -> dict[str, np.ndarray]:
        return draw(rng, rng.integers(0, taught, batch), WITHOUT_TEXT)

    # At as many times as there are pictures, the same at every look.
    kept = draw(np.random.default_rng(SEED), np.arange(taught, len(pictures)), 0.0)
    kept["timesteps"] = np.linspace(0, len(alphas) - 1, len(kept["rows"])).astype(np.int64)
    unseen = {key: torch.from_numpy(part).to(device) for key, part in kept.items()}

    def errors(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
        states, pooled = encode_prompts(model, given["tokens"])
        asked = given["asked"]
        clean = (latents[given["views"], given["rows"]].float() - mean) / deviation
        noise = torch.randn_like(clean)
        alpha = alphas[given["timesteps"]][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        result = model["unet"](
            noisy,
            given["timesteps"],
            # The pipeline gives zeros for an empty negative prompt.
            states * asked[:, None, None],
            added_cond_kwargs={
                "text_embeds": pooled * asked[:, None],
                "time_ids": time_ids.expand(len(asked), -1),
            },
        ).sample
        return (result.float() - velocity).square().mean((1, 2, 3))

    looks = itertools.count()

    def loss(model: Any, given: Any) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        figures: dict[str, float | torch.Tensor] = {}
        # Before the look, which draws as well.
        value = errors(model, given).mean()
        if next(looks) % LOOK_EVERY == 0:
            model.eval()
            with torch.no_grad():
                figures["kept out"] = errors(model, unseen).mean().detach()
            model.train()
        return value, figures

    def export(model: Any) -> None:
        write_pipeline(dict(model.items()), vae, tokenizer, out, VELOCITY)

    left = time_left(minutes, begun)
    schedule = Schedule(steps, rate, left, warmup=min(300, steps), average=0.9985)
    train(
        "images",
        model,
        loss,
        schedule,
        work,
        SEED,
        export,
        save_every,
        batch=prepare,
        device=device,
    )
    return out
