"""What is fitted to the complete pairs and measured on them: the mapping, and how to retrieve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from kb import contents
from kb.embeddings import MODALITIES, Modality, normalise, opposite, release, sample_rows, take
from kb.groups import content_groups
from kb.index.embedding_index import RECALL_QUERIES
from kb.mapping import CrossModalMapping
from kb.mapping.attended import EXPERTS, External
from kb.mapping.held_out import HeldOut
from kb.mapping.moments import Moments
from kb.pairs import Pairs
from kb.recipe import Recipe
from kb.retrieval import FusionRetriever
from kb.retrieval.leave_one_out import LeaveOneOut
from kb.retrieval.penalty import Captions
from kb.retrieval.settings import asks_by_pseudo

HELD_OUT = Path("mapping", "held_out.arrow")


def external_side(
    pairs: pa.Table,
    embeddings: Mapping[Modality, np.ndarray],
    internal: Pairs,
    random_state: int,
) -> External | None:
    """The external pairs that were kept, as they are stored, for a fit; None where there is none.

    Those that share a half with an internal pair stay out: they could not be held out with it.
    """
    external = contents.external_rows(pairs)
    digests = contents.digest_arrays(pairs)
    for modality, held in digests.items():
        external = external & ~np.isin(held, internal.digests[modality])
    if not external.any():
        return None

    def blocks(size: int = 16_384) -> Iterator[dict[Modality, np.ndarray]]:
        for start in range(0, len(external), size):
            part = slice(start, start + size)
            chosen = external[part]
            yield {m: embeddings[m][part][chosen].astype(np.float32) for m in MODALITIES}
            for modality in MODALITIES:
                release(embeddings[modality])

    moments = Moments.of(blocks(), {m: int(embeddings[m].shape[1]) for m in MODALITIES})
    rows = np.flatnonzero(external)
    rows = rows[sample_rows(len(rows), EXPERTS, random_state)]
    groups = content_groups(digests["image"][rows], digests["text"][rows])
    return External(moments, {m: take(embeddings[m], rows) for m in MODALITIES}, groups)


def predicts(recipe: Recipe) -> bool:
    """Whether retrieval may use pseudo-embeddings, and so can tell mappings apart."""
    mode, alpha = recipe.settings.retrieval.mode, recipe.settings.retrieval.alpha
    fuses = mode == "fusion" and alpha != 1
    return mode == "auto" or fuses or asks_by_pseudo(mode, recipe.shared_space)


def trials_of(retriever: FusionRetriever, internal: Pairs, rows: np.ndarray) -> LeaveOneOut:
    """Retrieval tried by some of the internal pairs."""
    queries = {m: take(internal.embeddings[m], rows) for m in MODALITIES}
    halves = {m: internal.digests[m][rows] for m in MODALITIES}
    return LeaveOneOut(retriever, queries, _ids(internal, rows), halves)


def captions_of(table: pa.Table, among: np.ndarray | None = None) -> Captions | None:
    """Reads captions of rows of a table of pairs, or of those `among` them; None where it holds none."""
    if "text" not in table.column_names:
        return None
    column = table["text"]

    def read(rows: np.ndarray) -> list[list[str]]:
        places = rows if among is None else among[rows]
        # One by one: taken together, strings of more than 2 GiB would be joined first.
        texts = (column[int(place)].as_py() for place in places)
        return [[text] if isinstance(text, str) else text or [] for text in texts]

    return read


def unseen_rows(mapping: CrossModalMapping) -> dict[Modality, np.ndarray] | None:
    """Predictions of `held_rows_` by mappings that did not see them, as they will be read back."""
    if mapping.out_of_fold_ is None:
        return None
    found = mapping.out_of_fold_
    return {m: found[m].astype(np.float16).astype(np.float32) for m in MODALITIES}


def keep_held_out(
    folder: Path, mapping: CrossModalMapping, internal: Pairs
) -> dict[Modality, np.ndarray | None]:
    """Keeps how pairs are predicted by mappings that did not see them.

    Returns
    -------
    dict of modality to float32 [r, d of the other], or None where the mapping says nothing
        As it will be read back, so that what is measured by it now and later agrees.
    """
    rows, predictions = mapping.held_rows_, unseen_rows(mapping)
    if predictions is None:
        own = {m: take(internal.embeddings[m], rows) for m in MODALITIES}
        predictions = {m: mapping.map(own[m], source=m) for m in MODALITIES}
    else:
        HeldOut(_ids(internal, rows), predictions).save(folder / HELD_OUT)
    return {m: None if mapping.constant_[m] else predictions[m] for m in MODALITIES}


def expected_queries(
    internal: Pairs,
    mapping: CrossModalMapping,
    unseen: Mapping[Modality, np.ndarray] | None,
    recipe: Recipe,
) -> dict[Modality, np.ndarray]:
    """Per modality such unit rows as its index will be asked for, by the modes of retrieval.

    In `cross` and `pseudo` these are rows of the other modality, or what is predicted of them:
    `unseen`, by mappings that did not see them, where there are such.
    """
    mode = recipe.settings.retrieval.mode
    rows = sample_rows(len(internal), RECALL_QUERIES, recipe.random_state)
    own = {m: take(internal.embeddings[m], rows) for m in MODALITIES}

    def predicted(source: Modality) -> np.ndarray:
        if unseen is not None:
            return normalise(unseen[source][:RECALL_QUERIES])
        return mapping.map(own[source], source=source)

    asked: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        kinds = []
        if mode in ("auto", "fusion", "intra"):
            kinds.append(own[modality])
        if mode == "auto" or asks_by_pseudo(mode, recipe.shared_space):
            kinds.append(predicted(opposite(modality)))
        if mode in ("auto", "cross") and recipe.shared_space:
            kinds.append(own[opposite(modality)])
        asked[modality] = np.concatenate(kinds)
    return asked


def _ids(pairs: Pairs, rows: np.ndarray) -> list[str]:
    return pairs.table["id"].take(pa.array(rows)).cast(pa.string()).to_pylist()
