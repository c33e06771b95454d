"""A row's candidates judged together, in whichever rounds they were drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from generators.base import Candidate
from kb.embeddings import Modality
from pipeline.completion.row import Row, Tried
from pipeline.completion.written import encoded
from pipeline.dataset.encoding import ImageFormat
from pipeline.ledger.review import REFUSED, half_digest
from pipeline.models.item_errors import embed_each
from pipeline.models.loaded import LoadedModels
from selection.judgement import UNJUDGED, Judged
from selection.scoring import Selector


def embedded(
    models: LoadedModels, candidates: Sequence[Candidate], missing: Modality
) -> tuple[np.ndarray, dict[int, str]]:
    """Unit embeddings [n, d] of candidates, and by number why one can't be embedded.

    Zeros stand for those, and for candidates that are nothing to embed.
    """
    held = [[c.text] if missing == "text" else c.image for c in candidates]
    empty = [not (c.text or "").strip() and c.image is None for c in candidates]
    real = [number for number, nothing in enumerate(empty) if not nothing]
    found, faults = embed_each(models, [held[number] for number in real], missing)
    embeddings = np.zeros((len(candidates), found.shape[1]), np.float32)
    embeddings[real] = found
    return embeddings, {real[place]: why for place, why in faults.items()}


def refused(
    candidates: Sequence[Candidate], digests: Sequence[str], format: ImageFormat
) -> set[int]:
    """Numbers of the candidates that are what a person rejected, by digests of that."""
    if not digests:
        return set()
    return {
        number
        for number, one in enumerate(candidates)
        if half_digest(one.text, None if one.image is None else encoded(one, format)) in digests
    }


def drawn(
    attempt: int,
    candidates: Sequence[Candidate],
    embeddings: np.ndarray,
    faults: Mapping[int, str],
    refused: set[int],
    second_look: bool = False,
) -> list[Tried]:
    """Candidates [n] with their embeddings [n, d], not judged yet; faults that are known by number."""
    return [
        Tried(
            attempt,
            candidate,
            UNJUDGED,
            embedding,
            fault=REFUSED if number in refused else faults.get(number),
            second_look=second_look,
        )
        for number, (candidate, embedding) in enumerate(zip(candidates, embeddings, strict=True))
    ]


def better(tried: Sequence[Tried], numbers: Sequence[int]) -> int:
    """Of some candidates, by number, the one that scores highest; the first of those that are level."""

    def score(number: int) -> float:
        found = tried[number].judgement.score
        return -math.inf if found is None else found

    return max(numbers, key=score)


def judged(
    row: Row, tried: Sequence[Tried], missing: Modality, selector: Selector
) -> tuple[list[Tried], Judged]:
    """Judge all candidates of a look at once; what depends on none of the others is not measured again."""
    candidates = [one.candidate for one in tried]
    embeddings = np.stack([one.embedding for one in tried])
    known = {number: one.fault for number, one in enumerate(tried) if one.fault is not None}
    if missing == "text":
        found = selector.judge_captions(
            [candidate.text or "" for candidate in candidates],
            embeddings,
            row.pseudo,
            [caption for each in row.shown(candidates) for caption in each.pair.captions],
            [candidate.prompt for candidate in candidates],
            known,
        )
    else:
        found = selector.judge_images(
            [candidate.image for candidate in candidates],
            embeddings,
            row.pseudo,
            known,
            {number: one.judgement.niqe for number, one in enumerate(tried)},
        )
    notes = (*found.notes, *(f"others failed: {why}" for why in row.lacking))
    told = zip(tried, found.judgements, strict=True)
    return [replace(one, judgement=judgement, notes=notes) for one, judgement in told], found
