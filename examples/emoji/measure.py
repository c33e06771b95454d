"""Measure the checkpoints on the example world: `python -m examples.emoji.measure [PART ...]`.

Everything is measured on pictures of the styles that no checkpoint was trained on. The judge is an
encoder from another seed than the one that selects.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from examples.emoji.captions import plain
from examples.emoji.sources import HERE
from examples.scenes.models import Encoder, greedy, paint, recall_at

logger = logging.getLogger(__name__)

POOL = 500


def read_pairs(name: str, pool: int = POOL, seed: int = 0) -> list[dict[str, Any]]:
    """Draw complete pairs of one Parquet file, with decoded pictures under `picture`."""
    rows = pq.read_table(HERE / f"{name}.parquet").to_pylist()
    rows = [row for row in rows if row.get("relevant", True)]
    order = np.random.default_rng(seed).permutation(len(rows))[:pool]
    chosen = [rows[i] for i in order]
    for row in chosen:
        row["picture"] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    return chosen


def measure_encoders(checkpoints: Path) -> dict[str, Any]:
    """Recall at 5 among 500 pairs, both ways, for the encoder and the judge."""
    result: dict[str, Any] = {}
    target, external = read_pairs("target"), read_pairs("external")
    names = {row["id"]: row["text"] for row in pq.read_table(HERE / "target.parquet").to_pylist()}
    for which in ("encoder", "encoder-judge"):
        encoder = Encoder(checkpoints / which)
        for style, pairs, texts in (
            ("noto, names", target, [row["text"] for row in target]),
            ("fluent flat, own captions", external, [row["text"] for row in external]),
            ("fluent flat, names", external, [names[row["id"][5:]] for row in external]),
        ):
            images, words = encoder.images([row["picture"] for row in pairs]), encoder.texts(texts)
            result[f"{which}: {style}"] = {
                "I2T R@5": recall_at(images, words),
                "T2I R@5": recall_at(words, images),
            }
    return result


def words_of(text: str) -> list[str]:
    """Split a caption into plain words."""
    return "".join(c if c.isalnum() or c == "'" else " " for c in plain(text)).split()


def right(said: str, name: str) -> bool:
    """Tell whether a caption is the name or holds its head noun.

    The head is the last word before a colon, a comma or a preposition ("face with tongue": face).
    For faces and people the whole name is asked for: their heads say next to nothing.
    """
    head = name.split(":")[0].split(",")[0]
    for small in (" with ", " of ", " in ", " on ", " without ", " and ", " at ", " behind "):
        head = head.split(small)[0]
    noun = words_of(head)[-1:]
    if noun and noun[0] in {"face", "person", "man", "woman", "people", "hand", "button"}:
        return words_of(said) == words_of(name)
    return words_of(said) == words_of(name) or noun[0] in words_of(said)


def retrieve(
    encoder: Encoder, queries: list[dict[str, Any]], base: list[dict[str, Any]], by: str
) -> list[dict[str, Any]]:
    """Give each query's best row of the base: ten by the same half, the best of them by both.

    Parameters
    ----------
    by : str
        The half that the query has, `text` or `picture`; a query's own concept counts like any.
    """
    given = [row[by] for row in queries]
    own = encoder.texts(given) if by == "text" else encoder.images(given)
    texts = encoder.texts([row["text"] for row in base])
    images = encoder.images([row["picture"] for row in base])
    intra, cross = (texts, images) if by == "text" else (images, texts)
    near = own @ intra.T
    both = 0.5 * near + 0.5 * own @ cross.T
    ten = np.argsort(-near, axis=1, kind="stable")[:, :10]
    best = [kept[np.argmax(both[i, kept])] for i, kept in enumerate(ten)]
    return [base[i] for i in best]


def measure_captioner(checkpoints: Path, pool: int = 400) -> dict[str, Any]:
    """Share of right captions with no example, a retrieved one, and an unrelated one."""
    from examples.scenes.training.blip2 import prompt_with

    rows, base = read_pairs("target", pool), read_pairs("external", 10_000)
    encoder = Encoder(checkpoints / "encoder")
    retrieved = retrieve(encoder, rows, base, "picture")
    rng = np.random.default_rng(1)
    unrelated = [base[i] for i in rng.integers(0, len(base), len(rows))]
    result: dict[str, Any] = {}
    alone = np.zeros(len(rows), bool)
    for which, examples in (
        ("no example", None),
        ("retrieved example", retrieved),
        ("unrelated example", unrelated),
    ):
        texts = [[] for _ in rows] if examples is None else [[row["text"]] for row in examples]
        said = greedy(
            checkpoints / "captioner",
            [row["picture"] for row in rows],
            [prompt_with(one) for one in texts],
        )
        hits = np.array([right(s, r["text"]) for s, r in zip(said, rows, strict=True)])
        found: dict[str, Any] = {
            "right": float(hits.mean()),
            "full name": float(np.mean([s == r["text"] for s, r in zip(said, rows, strict=True)])),
            "some": list(zip(said[:12], [row["text"] for row in rows], strict=False)),
        }
        if examples is None:
            alone = hits
        else:
            copied = [bool(one) and said[i] == one[0] for i, one in enumerate(texts)]
            same = np.array(
                [e["id"] == f"flat-{r['id']}" for e, r in zip(examples, rows, strict=True)]
            )
            found |= {"copied": float(np.mean(copied)), "same concept": float(same.mean())}
            if same.any():
                found |= {
                    "right, of the same concept": float(hits[same].mean()),
                    "those without an example": float(alone[same].mean()),
                }
        result[which] = found
    return result


def measure_images(checkpoints: Path, pool: int = POOL, guidance: float = 6.0) -> dict[str, Any]:
    """Recall at 5 of generated pictures for their own text, beside that of real pictures."""
    rows, base = read_pairs("target", pool), read_pairs("external", 10_000)
    texts = [row["text"] for row in rows]
    examples = retrieve(Encoder(checkpoints / "encoder"), rows, base, "text")
    judge = Encoder(checkpoints / "encoder-judge")
    words = judge.texts(texts)
    result: dict[str, Any] = {"guidance": guidance}
    for which, pictures in (
        ("real", [row["picture"] for row in rows]),
        ("example itself", [row["picture"] for row in examples]),
        ("without grounding", paint(checkpoints / "sdxl", texts, None, guidance)),
        (
            "img2img at 0.75",
            paint(checkpoints / "sdxl", texts, [r["picture"] for r in examples], guidance),
        ),
    ):
        images = judge.images(pictures)
        result[which] = {"I2T R@5": recall_at(images, words), "T2I R@5": recall_at(words, images)}
    return result


def main() -> None:
    """Measure what is asked for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Any] = {
        "encoders": measure_encoders,
        "captioner": measure_captioner,
        "images": measure_images,
    }
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="PART")
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--pool", type=int, help="pairs to measure on, other than the default")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for part in options.parts:
        if part not in parts:
            raise SystemExit(f"PART must be one of {', '.join(parts)}; got {part!r}")
        how: dict[str, Any] = {}
        if options.pool and part != "encoders":
            how["pool"] = options.pool
        if part == "images":
            how["guidance"] = options.guidance
        print(json.dumps({part: parts[part](options.checkpoints, **how)}, indent=1))


if __name__ == "__main__":
    main()
