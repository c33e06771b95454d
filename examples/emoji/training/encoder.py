"""Stages `encoder` and `judge`: two open_clip models of one shape from different seeds.

A batch holds each concept once, drawn in both training styles; images are contrasted with the
caption and with each other, which teaches what stays the same across styles.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.emoji.captions import load_concepts
from examples.emoji.pictures import TRAINING_STYLES, load_pictures
from examples.emoji.training import augment
from examples.emoji.training.loop import Schedule, train
from examples.emoji.training.texts import CONTEXT, learn_tokenizer, wording

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 128
MEAN, STD = (0.75, 0.7, 0.65), (0.33, 0.33, 0.36)
EMBED_DIM = 128


def model_config(tokenizer: Any) -> dict[str, Any]:
    """Give open_clip's model configuration."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "image_size": 64,
            "layers": [1, 1, 1, 1],
            "width": 16,
            "head_width": 64,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(tokenizer),
            "width": 128,
            "heads": 4,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
            "hf_tokenizer_name": "tokenizer",
        },
    }


def new_encoder(tokenizer: Any) -> nn.Module:
    """Make the untrained two-tower model."""
    from open_clip import CLIP

    config = model_config(tokenizer)
    model: nn.Module = CLIP(**config)
    return model


def write_encoder(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write an open_clip folder in half precision, swapped in whole."""
    import torch
    from safetensors.torch import save_file

    beside = folder.with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    tokenizer.save_pretrained(beside)
    preprocess = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "longest",
        "fill_color": 255,
    }
    settings = {"model_cfg": model_config(tokenizer), "preprocess_cfg": preprocess}
    (beside / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    weights = {
        key: value.half().contiguous() if value.dtype == torch.float32 else value
        for key, value in model.state_dict().items()
    }
    save_file(weights, beside / "open_clip_model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Apply the encoder's mean and deviation to pictures on [0, 1]."""
    import torch

    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def encode_text(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Encode token rows shorter than the context; equal to open_clip's on padded rows.

    The mask is causal and the pooled token is the first end of text, so that what follows it
    has no influence; leaving it out saves most of the text tower's work.
    """
    import torch

    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    first = (tokens == model.text_eos_id).int().argmax(dim=-1)
    pooled: torch.Tensor = x[torch.arange(len(x)), first] @ model.text_projection
    return pooled


def settle_statistics(tower: nn.Module, pictures: torch.Tensor) -> None:
    """Measure the batch normalisations' statistics anew, on pictures nearly as they are.

    What training kept is of heavily augmented batches, and plain pictures differ from those
    enough to ruin retrieval across styles (see README.md for how much).
    """
    import torch

    rng = np.random.default_rng(0)
    order = torch.from_numpy(rng.permutation(len(pictures))[:1536])
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    tower.train()
    with torch.no_grad():
        for rows in order.split(128):
            tower(normalise(augment.move(pictures[rows], rng, 8, (0.85, 1.1), 0.05)))
    tower.eval()


def contrast(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy of matching rows (Radford et al. 2021, figure 3)."""
    import torch
    from torch.nn import functional

    logits = scale * a @ b.T
    target = torch.arange(len(a))
    ahead = functional.cross_entropy(logits, target, label_smoothing=0.05)
    return (ahead + functional.cross_entropy(logits.T, target, label_smoothing=0.05)) / 2


def train_encoder(
    name: str, work: Path, folder: Path, seed: int, steps: int, minutes: float
) -> None:
    """Train one encoder and write it to `folder`."""
    import torch

    tokenizer = learn_tokenizer(work / "tokenizer")
    concepts = load_concepts()
    by_style = []
    for style in TRAINING_STYLES:
        rows, pictures = load_pictures(style)
        by_style.append(dict(zip(rows.tolist(), augment.to_tensor(pictures), strict=True)))
    everywhere = np.asarray(sorted(set(by_style[0]) & set(by_style[1])))
    plain = np.asarray(
        [concepts[i].category not in ("Flags", "Symbols") for i in everywhere], dtype=float
    )
    # Flags and symbols are a quarter of the concepts and no part of the target domain.
    chance = np.where(plain > 0, 1.0, 0.35)
    chance /= chance.sum()

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = rng.choice(everywhere, BATCH, replace=False, p=chance)
        x = torch.stack([style[i] for style in by_style for i in rows])
        x = augment.move(x, rng, 15, (0.7, 1.15), 0.1)
        x = augment.recolour(x, rng, 1.0)
        x = augment.blot(augment.blur(x, rng, 0.3), rng, 0.3)
        texts = [wording(concepts[i], rng) for i in rows]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
        images = torch.nn.functional.normalize(model.visual(normalise(x)), dim=-1)
        text = torch.nn.functional.normalize(encode_text(model, tokens), dim=-1)
        scale = model.logit_scale.exp().clamp(max=60)
        a, b = images.chunk(2)
        across = contrast(a, b, scale)
        value = (contrast(a, text, scale) + contrast(b, text, scale) + across) / 3
        hits = (a.detach() @ text.detach().T).argmax(1) == torch.arange(BATCH)
        return value, {"hits": float(hits.float().mean()), "across": float(across.detach())}

    clean = torch.cat([torch.stack(list(style.values())) for style in by_style])

    def export(model: Any) -> None:
        settle_statistics(model.visual, clean)
        write_encoder(model, tokenizer, folder)

    torch.manual_seed(seed)
    model: Any = new_encoder(tokenizer)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(15))
    schedule = Schedule(steps, 2e-3, minutes, warmup=200, average=0.995, weight_decay=0.1)
    train(name, model, loss, schedule, work, seed, export)
