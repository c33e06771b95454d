"""Rows of a finished run as the schema has them, for the tests of the report."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.dataset.schema import completed_schema

SCRIPT = "<script>document.title='broken'</script> & a \"red\" hat</script>"
WORDS = [
    "a",
    "red",
    "hat",
    "on",
    "the",
    "old",
    "wooden",
    "table",
    "beside",
    "two",
    "small",
    "dogs",
    "in",
    "a",
    "green",
    "garden",
]


@lru_cache(maxsize=64)
def encoded(number: int) -> bytes:
    """A crop of one of scikit-learn's sample photographs as WebP."""
    photo = load_sample_images().images[number % 2]
    top, left = number % 40 * 37 % 240, number % 40 * 53 % 440
    buffer = io.BytesIO()
    Image.fromarray(photo[top : top + 160, left : left + 200]).save(buffer, "WEBP")
    return buffer.getvalue()


def caption(number: int) -> str:
    start = number % 8
    return " ".join(WORDS[start : start + 5 + number % 4])


def candidate(missing: str, number: int, valid: bool = True) -> dict[str, Any]:
    generator = np.random.default_rng(number)
    cosine, other = generator.uniform(0.1, 0.6), generator.uniform(0, 1)
    value = cosine + 0.1 * other
    return {
        "text": caption(number) if missing == "text" else None,
        "seed": 2**62 + number,
        "attempt": 1,
        "cosine": cosine,
        "bleu": other if missing == "text" and valid else None,
        "niqe": 3 + 4 * other if missing == "image" and valid else None,
        "score": value if valid else None,
        "valid": valid,
        "reason": None if valid else "loop" if missing == "text" else "black",
        "notes": ["example cut to 12 tokens"] if number % 5 == 0 else [],
    }


def row(number: int, text: str | None = None) -> dict[str, Any]:
    """Row `number`; by its remainder observed, completed, rejected or failed."""
    kind = number % 10
    missing = None if kind < 3 else "text" if kind % 2 else "image"
    status = "observed" if missing is None else {8: "rejected", 9: "failed"}.get(kind, "completed")
    lost = status in ("rejected", "failed")
    candidates = (
        []
        if missing is None
        else [candidate(missing, 4 * number + n, valid=not (lost or n == 3)) for n in range(4)]
    )
    chosen = None
    if status == "completed":
        chosen = max(range(3), key=lambda n: candidates[n]["score"])
    reasons = {"rejected": "all candidates invalid: black", "failed": "out of memory"}
    return {
        "id": f"row-{number:05d}",
        "image": None
        if missing == "image" and lost
        else {"bytes": encoded(number % 40), "path": None},
        "text": None if missing == "text" and lost else text or caption(number),
        "status": status,
        "missing": missing,
        "reason": reasons.get(status, "undecodable" if missing == "image" else None),
        "completion": None
        if missing is None
        else {
            "generator": "blip2" if missing == "text" else "sdxl",
            "model": "tiny/model",
            "revision": "0123abcd",
            "prompt": "Please write two captions of the image. Caption 1: …",
            "seed": 2**62 + 4 * number + (chosen or 0),
            "attempt": 1,
            "kb_version": "fedc9876",
            "examples": [
                {
                    "id": f"photos/{number % 7}",
                    "source": "photos",
                    "licence": "CC-BY-4.0",
                    "text": caption(number + 3),
                    "intra": 0.71,
                    "cross": 0.42,
                    "score": 0.57,
                }
            ],
            "candidates": candidates,
            "chosen": chosen,
            "score": None if chosen is None else candidates[chosen]["score"],
            "run_id": "run-1",
        },
    }


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows through Arrow, so that they are exactly what the schema holds."""
    schema = completed_schema(text_is_list=False)
    for start in range(0, count, 100):
        batch = [row(n, SCRIPT if n == 3 else None) for n in range(start, min(start + 100, count))]
        yield from pa.Table.from_pylist(batch, schema=schema).to_pylist()


MANIFEST: dict[str, Any] = {
    "version": "fedc9876",
    "counts": {"by_source": {"internal": 600, "photos": 700, "web & more": 214}},
    "mapping": {
        "chosen": {"image": "ridge", "text": "mlp"},
        "constant": {"image": False, "text": False},
        "scores": {
            source: {
                name: {
                    "reciprocal_rank": value,
                    "standard_error": 0.004,
                    "recall_at_5": value / 2,
                    "cosine": value / 3,
                }
                for name, value in (("start", 0.31), ("ridge", 0.44), ("mlp", 0.45))
            }
            for source in ("image", "text")
        },
    },
    "purification": {
        "filter": {
            "tau_cent": 0.412,
            "tau_inst": 0.287,
            "internal_clusters": 17,
            "external_clusters": 36,
            "clusters_dropped": 5,
            "rows_in": 1300,
            "verdicts": {"kept": 914, "cluster": 301, "instance": 85},
        },
        "alignment": {
            "image": {
                "gamma": 0.003,
                "identity": False,
                "gains": [
                    {"gamma": g, "gain": v, "standard_error": 0.001}
                    for g, v in ((0, -0.02), (3e-4, 0.004), (3e-3, 0.019), (1e-2, 0.012))
                ],
                "history": [
                    {"round": r, "pairs": 300, "cosine_before": 0.5, "cosine_after": 0.5 + r / 40}
                    for r in range(1, 5)
                ],
            },
            "text": {"gamma": None, "identity": True, "gains": [], "history": [{"round": 1}]},
        },
    },
    "retrieval": {
        "mode": "fusion",
        "k": 10,
        "alpha": 0.5,
        "consensus": 0.25,
        "fusion": {"image": {"gain": 0.012, "standard_error": 0.004, "taken": True}},
        "evidence": [
            {
                "mode": "fusion",
                "k": k,
                "alpha": a,
                "consensus": 0.25,
                "image": 0.4 + a / 50,
                "text": 0.42,
                "mean": 0.41 + a / 100,
                "gain": a / 100,
                "standard_error": 0.001,
            }
            for k in (10, 50)
            for a in (0.25, 0.5)
        ],
    },
    "steps": [{"step": "mapping", "seconds": 12.3}, {"step": "indexes", "seconds": 130.0}],
}

SUMMARY: dict[str, Any] = {
    "name": "harbour & garden",
    "run_id": "run-1",
    "finished": "2026-01-02 03:04 UTC",
    "settings": "name: harbour\nselection:\n  caption:\n    lambda2: 0.1\n",
    "models": [{"role": "captioner", "model": "tiny/model", "revision": "0123abcd"}],
    "times": [{"step": "generation", "seconds": 4000.0}],
    "warnings": ["NIQE cannot be measured on pictures of 64 pixels: the cosine alone decides"],
}
