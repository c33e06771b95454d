"""The open_clip model of both encoder stages: its parts, how they are read, and its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.grounds import SIDE
from examples.scenes.training import augment
from examples.scenes.training.texts import CONTEXT

if TYPE_CHECKING:
    import torch
    from torch import nn

MEAN, STD = (0.55, 0.55, 0.55), (0.3, 0.3, 0.3)
EMBED_DIM = 192
# Width of the features of 4 x 4 parts of a picture.
PARTS = 224


def model_config(tokenizer: Any) -> dict[str, Any]:
    """Give open_clip's model configuration."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": [1, 1, 2, 1],
            "width": 14,
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

    mean, deviation = (torch.tensor(part, device=x.device)[:, None, None] for part in (MEAN, STD))
    return (x - mean) / deviation


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
    pooled: torch.Tensor = x[torch.arange(len(x), device=x.device), first] @ model.text_projection
    return pooled


def settle_statistics(
    tower: nn.Module, take: Callable[[np.ndarray], torch.Tensor], count: int, device: str
) -> None:
    """Measure the batch normalisations' statistics anew, on pictures nearly as they are.

    What training kept is of augmented batches, and plain pictures differ from those enough to ruin
    retrieval across styles.

    Parameters
    ----------
    take : callable
        Given positions among `count` pictures, gives them on the device.
    """
    import torch

    rng = np.random.default_rng(0)
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    tower.to(device).train()
    order = np.sort(rng.permutation(count)[:1536])
    with torch.no_grad():
        for rows in np.array_split(rng.permutation(order), max(1, len(order) // 128)):
            x = take(np.sort(rows))
            tower(normalise(augment.move(x, rng, 2, (0.95, 1.05), 0.02, False, "edge")))
    tower.to("cpu").eval()


def look(tower: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the embedding (n, d) of normalised pictures, and their features (n, c, 4, 4) before."""
    return look_whole(tower, x)[:2]


def look_whole(tower: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give what `look` does, and the features (n, 2 c, 2, 2) that are pooled."""
    import torch

    x = x.contiguous(memory_format=torch.channels_last)
    parts = tower.layer3(tower.layer2(tower.layer1(tower.stem(x))))
    quarters = tower.layer4(parts)
    return tower.attnpool(quarters), parts, quarters
