"""Fine-tunes an open_clip model on an exported dataset, and shows what generated rows are worth.

    rag4dmc export my.yaml
    python examples/train_clip.py runs/mine/exports/parquet --model ViT-B-32:laion2b_s34b_b79k
    python examples/train_clip.py runs/mine/exports/parquet --only observed
    python examples/train_clip.py runs/mine/exports/parquet --generated-weight 0.5

An eighth of the observed pairs is held out by id, the same one in each of these; retrieval among them
is measured before and after. A generated half is a model's guess, so none is ever measured on. But the
held-out pairs were in the knowledge base, and may have grounded what is trained on: for figures to be
published, hold pairs out before the dataset is completed (`rag4dmc evaluate` does).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from datasets import Dataset, disable_progress_bars, load_dataset
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

# Share of the observed pairs that is measured on.
HELD_OUT = 1 / 8


def main() -> None:
    options = read_options()
    disable_progress_bars()
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, augment, preprocess, tokenizer = load_model(options.model)
    model.to(device)
    rows = load_dataset("parquet", data_files=f"{options.dataset}/data/*.parquet", split="train")
    training, held_out = split(rows, options.only)
    kinds = [training["status"].count(status) for status in ("observed", "completed")]
    print(
        f"training on {kinds[0]} observed and {kinds[1]} generated rows, of which each counts"
        f" {options.generated_weight:g}; measuring on {len(held_out)} observed ones"
    )
    report("before", recall(model, held_out, preprocess, tokenizer, device))
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.1)
    steps = options.epochs * -(-len(training) // options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    generator = np.random.default_rng(options.seed)
    for epoch in range(1, options.epochs + 1):
        model.train()
        losses = []
        for batch in batches(training, options.batch_size, generator):
            images, texts = encode(model, batch, augment, tokenizer, device)
            weights = row_weights(batch["status"], options.generated_weight).to(device)
            loss = clip_loss(images, texts, model.logit_scale.exp(), weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            # As in CLIP: beyond 100 the softmax is as hard as one that picks.
            model.logit_scale.data.clamp_(0, np.log(100))
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}", flush=True)
    report("after", recall(model, held_out, preprocess, tokenizer, device))
    if options.output:
        save(model, options.model, options.output)
        print(f"saved to {options.output}")


def row_weights(statuses: list[str], generated_weight: float) -> torch.Tensor:
    """How much each row counts: 1 where both halves are real, less where one was generated."""
    return torch.tensor([generated_weight if s == "completed" else 1.0 for s in statuses])


def clip_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric cross-entropy over unit embeddings [n, d], each row by its weight [n].

    A row that counts little is still a negative of the others: it is another picture all the same.
    """
    logits = scale * images @ texts.T
    target = torch.arange(len(logits), device=logits.device)
    losses = cross_entropy(logits, target, reduction="none")
    losses = (losses + cross_entropy(logits.T, target, reduction="none")) / 2
    return (weights * losses).sum() / weights.sum().clamp_min(1e-6)


def split(rows: Dataset, only: str) -> tuple[Dataset, Dataset]:
    """Rows to train on, and observed ones to measure on."""

    def held(identifier: str) -> bool:
        return hashlib.blake2b(identifier.encode(), digest_size=1).digest()[0] < 256 * HELD_OUT

    ids, statuses = rows["id"], rows["status"]
    apart = [s == "observed" and held(i) for i, s in zip(ids, statuses, strict=True)]
    training = [n for n, status in enumerate(statuses) if not apart[n] and only in ("all", status)]
    return rows.select(training), rows.select(np.flatnonzero(apart))


def batches(rows: Dataset, size: int, generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    order = generator.permutation(len(rows))
    for start in range(0, len(rows), size):
        yield rows[order[start : start + size]]


def encode(
    model: Any, batch: dict[str, Any], transform: Any, tokenizer: Any, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings of a batch's images and texts; of several captions the first counts."""
    pixels = torch.stack([transform(image.convert("RGB")) for image in batch["image"]])
    texts = [text if isinstance(text, str) else text[0] for text in batch["text"]]
    return (
        model.encode_image(pixels.to(device), normalize=True),
        model.encode_text(tokenizer(texts).to(device), normalize=True),
    )


@torch.inference_mode()
def recall(
    model: Any, rows: Dataset, preprocess: Any, tokenizer: Any, device: str
) -> dict[str, float]:
    """Share of images that find their text among the nearest 1 and 5, and of texts their image."""
    model.eval()
    parts = [
        encode(model, rows[start : start + 64], preprocess, tokenizer, device)
        for start in range(0, len(rows), 64)
    ]
    images, texts = (torch.cat(side) for side in zip(*parts, strict=True))
    similar = images @ texts.T
    found = {}
    for name, scores in (("image to text", similar), ("text to image", similar.T)):
        place = (scores > scores.diagonal()[:, None]).sum(1)
        for k in (1, 5):
            found[f"{name} @{k}"] = (place < k).float().mean().item()
    return found


def report(when: str, found: dict[str, float]) -> None:
    print(f"recall {when}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


def load_model(name: str) -> tuple[Any, Any, Any, Any]:
    """Model, training and evaluation transforms, and tokenizer of a folder or ARCHITECTURE:TAG."""
    architecture, _, tag = name.partition(":")
    if Path(name).is_dir():
        architecture, tag = f"local-dir:{name}", ""
    model, augment, preprocess = open_clip.create_model_and_transforms(
        architecture, pretrained=tag or None
    )
    return model, augment, preprocess, open_clip.get_tokenizer(architecture)


def save(model: Any, origin: str, folder: Path) -> None:
    """Write the weights, and beside them what open_clip needs to load the folder as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    if Path(origin).is_dir():
        for path in Path(origin).glob("*.json"):
            shutil.copy(path, folder)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fine-tune an open_clip model on an export of rag4dmc.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset", type=Path, help="folder of an export with --format parquet")
    parser.add_argument(
        "--model", default="ViT-B-32:laion2b_s34b_b79k", help="folder, or ARCHITECTURE:TAG"
    )
    parser.add_argument("--only", choices=["all", "observed", "completed"], default="all")
    parser.add_argument(
        "--generated-weight", type=float, default=1.0, help="of a row with a generated half"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="folder for the tuned model")
    options = parser.parse_args()
    if not list(options.dataset.glob("data/*.parquet")):
        parser.error(f"{options.dataset} holds no data/*.parquet; first: rag4dmc export CONFIG")
    if options.generated_weight < 0:
        parser.error(f"--generated-weight must be 0 or more; got {options.generated_weight:g}")
    return options


if __name__ == "__main__":
    main()
