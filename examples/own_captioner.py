"""A captioner of one's own, named in a config as ``examples.own_captioner:AgreementCaptioner``.

It has no model: it answers with the captions of the retrieved pairs, the more often the more they
agree with one another. Whatever a captioner of yours does, it needs what is here: a ``Settings`` class
with ``kind``, ``models``, ``identity`` and ``needs``, and ``load``, ``close``, ``memory`` and ``generate``.

    captioner:
      kind: examples.own_captioner:AgreementCaptioner
      sharpness: 4
    knowledge_base:
      retrieval: {examples: 5}
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from generators.base import Candidate, CaptionRequest, Generated, Needs


class AgreementSettings(BaseModel):
    """What may stand under ``captioner`` in the config; other keys are refused."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(description="The address of the class.")
    sharpness: float = Field(
        4.0, ge=0, description="0 draws any retrieved caption; more prefers those that agree."
    )

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role -> (hub id or folder, revision); each folder arrives in ``paths`` by its role."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What the captions depend on: when it changes, rows are completed anew."""
        return self.model_dump(mode="json")

    def needs(self) -> Needs:
        """What it takes of an example: their captions alone, and it makes nothing without one."""
        return Needs(text=True, image=False, example=True)


class AgreementCaptioner:
    """Draws among the retrieved captions by their agreement, the mean F1 of shared words."""

    Settings = AgreementSettings

    def __init__(self, settings: AgreementSettings, paths: Mapping[str, Path]) -> None:
        self.settings = settings

    def load(self) -> None:
        """Nothing to load. A model would be loaded here, once, from its folder."""

    def close(self) -> None:
        """Nothing to free."""

    def memory(self) -> int:
        """Bytes of the loaded weights."""
        return 0

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """One answer a request, in order; a row that can't be done gets an error of its own."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: CaptionRequest) -> Generated:
        shown = [example for example in request.examples if example.text.strip()]
        if not shown:
            return Generated(request.row_id, error="no example has a caption")
        texts = [example.text for example in shown]
        weights = [(0.01 + agreement(text, texts)) ** self.settings.sharpness for text in texts]
        candidates = []
        for seed in request.seeds:
            # Every draw comes from the seed that was handed in, so that runs can be repeated.
            (text,) = random.Random(seed).choices(texts, weights)
            candidates.append(
                # What `completion` records as having grounded the caption is what `shown` says.
                Candidate(seed, prompt="", text=text, shown=tuple(one.id for one in shown))
            )
        return Generated(request.row_id, tuple(candidates))


def agreement(text: str, texts: Sequence[str]) -> float:
    """Mean F1 of the words that a caption shares with each of several, itself among them."""
    return sum(shared_words(text, other) for other in texts) / len(texts)


def shared_words(one: str, other: str) -> float:
    """F1 of two captions as sets of words, 0..1.

    Examples
    --------
    >>> round(shared_words("a red hat", "a hat"), 2)
    0.8
    """
    first, second = set(one.lower().split()), set(other.lower().split())
    return 2 * len(first & second) / max(1, len(first) + len(second))
