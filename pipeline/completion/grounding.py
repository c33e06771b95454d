"""Retrieved pairs as rows are shown them: with the caption that speaks for each, and without faulty ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.base import Needs
from kb.embeddings import Modality
from kb.retrieval import Hit
from pipeline.completion.halves import embedded_captions, nearest_caption
from pipeline.completion.row import Grounds, Row
from pipeline.knowledge.seen import Knowledge
from pipeline.models.loaded import LoadedModels


def grounds_of(
    rows: Sequence[Row],
    found: Sequence[Sequence[Hit]],
    texts: Sequence[np.ndarray | None],
    knowledge: Knowledge,
    models: LoadedModels,
    needs: Needs,
) -> list[list[Grounds]]:
    """What a generator may be shown for each row, best first; pairs at fault are `dropped` of it.

    Parameters
    ----------
    rows : sequence of Row
    found : sequence of sequence of Hit
        The pairs of each.
    texts : sequence of array [d] or None
        The embedding of each row's text, or what stands for it: of a pair's captions the one nearest to it
        is taken.
    knowledge : Knowledge
    models : LoadedModels
    needs : Needs
        What the generator takes of an example.
    """
    pairs = knowledge.pairs(
        [hit.row for hits in found for hit in hits],
        with_images=needs.image,
        longest_side=needs.side,
    )
    spoken = embedded_captions(models, pairs.values())
    shown: list[list[Grounds]] = []
    for row, target, hits in zip(rows, texts, found, strict=True):
        shown.append([])
        for hit in hits:
            pair = pairs[hit.row]
            example = Grounds(pair, nearest_caption(pair.captions, target, spoken), hit, needs.side)
            if pair.fault is None:
                shown[-1].append(example)
            else:
                row.dropped.append((example, pair.fault))
    return shown


def others_of(
    rows: Sequence[Row],
    observed: Modality,
    count: int,
    knowledge: Knowledge,
    models: LoadedModels,
    needs: Needs,
) -> list[list[Grounds]]:
    """So many pairs for the second look of each row that has a choice: by that too, none retrieved before."""
    chosen = [row.best.embedding for row in rows if row.best is not None]
    own = [row.embedding for row in rows if row.embedding is not None]
    embeddings, candidates = np.stack(own), np.stack(chosen)
    before = [[*row.retrieved, *(one for one, _ in row.dropped)] for row in rows]
    width = max(map(len, before))
    seen = np.full((len(rows), width), -1, np.int64)
    for place, examples in enumerate(before):
        seen[place, : len(examples)] = [one.hit.row for one in examples]
    ids = [row.id for row in rows]
    found = knowledge.retrieve_again(embeddings, observed, ids, candidates, seen, count)
    texts = own if observed == "text" else chosen
    return grounds_of(rows, found, texts, knowledge, models, needs)
