"""Stage `unet`: a `StableDiffusionXLPipeline` of 64 px on the stage `vae`'s latents.

The net predicts v = √α ε − √(1 − α) z (Salimans and Ho 2022): at full noise that is the mean
picture of a caption, the part that a small net learns first, and where there is little noise
what is there stays, whether or not the net has learned to draw it. The second text encoder is
the text tower of the stage `encoder`, and both stay as they are. At high noise the net learns
one style alone, of things that have a name. At lower noise it also sees the other style, things and
words that it can know nothing of, and texts of other scenes, so that what it starts from counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.grammar import PLAIN
from examples.scenes.training.lessons import School
from examples.scenes.training.loop import Schedule, save_atomically, train
from examples.scenes.training.means import Means
from examples.scenes.training.painter import (
    SCHEDULER,
    adopt_text_tower,
    encode_prompts,
    new_painter,
    write_pipeline,
)
from examples.scenes.training.pool import Pool, load_pool
from examples.scenes.training.texts import (
    CONTEXT,
    foreign_words,
    learn_tokenizer,
    made_up_dialect,
)
from examples.scenes.training.vae import standardise

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import nn

BATCH = 64
WITHOUT_TEXT = 0.1
# Below these timesteps a batch holds other scenes, and texts of other scenes.
STRANGE_BELOW = 800
MISLED_BELOW = 500


def encode_pictures(vae: AutoencoderKL, pool: Pool, means: Means, cache: Path) -> torch.Tensor:
    """Give the mean latents (n, c, 8, 8) of all pictures, in half precision.

    They are kept on disk until the autoencoder's folder is newer than they are.
    """
    import torch

    made = cache.stat().st_mtime if cache.is_file() else 0.0
    if made < (cache.parents[2] / "models" / "vae" / "config.json").stat().st_mtime:
        parts = []
        take, vae = means.hold(pool.pictures), vae.to(means.device)
        with torch.no_grad():
            for rows in np.array_split(np.arange(len(pool.scenes)), len(pool.scenes) // 64):
                parts.append(vae.encode(take(rows) * 2 - 1).latent_dist.mean.half().cpu())
        vae.to("cpu")
        save_atomically(torch.cat(parts), cache)
    latents: torch.Tensor = torch.load(cache, weights_only=True, map_location="cpu")
    return latents.to(means.device)


def scale_pooled(tower: Any, tokenizer: Any, texts: list[str]) -> None:
    """Scale the projection so that pooled embeddings vary by about one in each entry."""
    import torch

    with torch.no_grad():
        pooled = tower(padded(tokenizer, texts)).text_embeds
        tower.text_projection.weight /= pooled.std(0).mean()


def padded(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Give token rows as the pipeline makes them."""
    tokens: torch.Tensor = tokenizer(
        texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    ).input_ids
    return tokens


def train_unet(work: Path, out: Path, seed: int, means: Means) -> None:
    """Train the U-Net on latents of the pool and write the pipeline to `out/sdxl`."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler
    from safetensors.torch import load_file

    tokenizer = learn_tokenizer(work / "tokenizer", work)
    foreign = foreign_words(work)
    scenes = means.scenes
    pool = load_pool(work, scenes)
    school = School(pool, foreign)
    vae = AutoencoderKL.from_pretrained(work / "models" / "vae").float().eval()
    latent = encode_pictures(vae, pool, means, work / "pool" / str(scenes) / "latents.pt")
    sample = latent[:: max(1, len(latent) // 4000)].float()
    mean, deviation = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    standardise(vae, mean, deviation)
    shift, scale = mean[:, None, None], deviation[:, None, None]
    alphas = DDIMScheduler(**SCHEDULER).alphas_cumprod.to(means.device)
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]], device=means.device)
    # The first half of the pool is of one style.
    drawn = school.familiar[school.familiar < scenes]
    drawn = drawn if len(drawn) else np.arange(scenes)

    torch.manual_seed(seed)
    model: Any = dict(new_painter(tokenizer).items())  # type: ignore[operator]
    model["unet"].to(memory_format=torch.channels_last)
    weights = load_file(out / "encoder" / "open_clip_model.safetensors")
    adopt_text_tower(model["text_encoder_2"], weights)
    few = [PLAIN.tell(scene) for scene in pool.scenes[:500]]
    scale_pooled(model["text_encoder_2"], tokenizer, few)
    for part in ("text_encoder", "text_encoder_2"):
        model[part].to(means.device).eval()

    def text_of(row: int, strange: bool, rng: np.random.Generator) -> str:
        scene = pool.scenes[row]
        if not strange or rng.random() < 0.3:
            return PLAIN.tell(scene)
        names = [group.thing.name for group in scene.groups]
        return made_up_dialect(rng, names, foreign, float(rng.choice([0.35, 0.7]))).tell(scene)

    def batch(rng: np.random.Generator) -> dict[str, Any]:
        n = means.rows(BATCH)
        late = rng.random(n) < 0.3
        timesteps = np.where(late, rng.integers(600, 1000, n), rng.integers(0, 1000, n))
        strange = (timesteps < STRANGE_BELOW) & (rng.random(n) < 0.5)
        rows = np.where(strange, rng.integers(0, len(pool.scenes), n), rng.choice(drawn, n))
        astray = strange & (timesteps < MISLED_BELOW) & (rng.random(n) < 0.3)
        told = np.where(astray, rng.choice(drawn, n), rows)
        texts = [text_of(int(row), bool(odd), rng) for row, odd in zip(told, strange, strict=True)]
        texts = ["" if rng.random() < WITHOUT_TEXT else text for text in texts]
        asked = np.asarray([bool(text) for text in texts], np.float32)
        tokens = padded(tokenizer, texts)
        return {"rows": rows, "t": timesteps, "strange": strange, "asked": asked, "tokens": tokens}

    def loss(
        net: nn.Module, given: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        t, strange, asked = given["t"], given["strange"], given["asked"]
        with torch.no_grad():
            states, pooled = encode_prompts(model, given["tokens"])
        clean = (latent[given["rows"]].float() - shift) / scale
        clean = clean.contiguous(memory_format=torch.channels_last)
        alpha = alphas[t][:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        # The pipeline gives zeros for an empty negative prompt.
        conditions = {
            "text_embeds": pooled * asked[:, None],
            "time_ids": time_ids.expand(len(t), -1),
        }
        result = net(noisy, t, states * asked[:, None, None], added_cond_kwargs=conditions).sample
        errors = (result.float() - velocity).square().mean((1, 2, 3))
        kinds = {"late": t > 900, "strange": strange}
        shown = {key: errors.detach()[kept] for key, kept in kinds.items()}
        figures = {key: part.mean() if len(part) else 0.5 for key, part in shown.items()}
        return errors.mean(), figures

    def export(net: nn.Module) -> None:
        write_pipeline({**model, "unet": net}, vae, tokenizer, out / "sdxl")

    schedule = Schedule(
        means.steps, 1.5e-3, means.minutes, warmup=200, average=0.995, weight_decay=0.01
    )
    train("unet", model["unet"], loss, schedule, work, seed, export, batch=batch, **means.how())
