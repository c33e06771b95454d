"""Frozen encoders: pictures and texts to unit embeddings. Chosen by `kind`."""

from __future__ import annotations

from kb.encoders.base import Encoder

ENCODERS: dict[str, str] = {
    "open_clip": "kb.encoders.open_clip:OpenClipEncoder",
    "transformers": "kb.encoders.transformers:TransformersEncoder",
    "pair": "kb.encoders.pair:PairEncoder",
}

__all__ = ["ENCODERS", "Encoder"]
