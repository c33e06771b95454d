"""Two-stage fusion retrieval: the pairs that ground a row's missing half."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from kb.embeddings import Modality, Rows, normalise, opposite
from kb.hits import Hit, Neighbours
from kb.index import REFINE, EmbeddingIndex
from kb.mapping import CrossModalMapping

logger = logging.getLogger(__name__)

DEFAULT_K = 10
DEFAULT_ALPHA = 0.5
# Fetched beyond k, so that the row itself and ties at the edge do not cost a place.
SPARE = 4
# Scores that differ by less are ties, and go to the lower id.
DECIMALS = 6
QUERIES_AT_ONCE = 2048
ROWS_AT_ONCE = 1024


class RetrievalSettings(BaseModel):
    """Which pairs are retrieved for a row."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["fusion", "intra", "cross"] = Field(
        default="fusion",
        description="fusion: both stages; intra: stage 1 alone; cross: the query against the "
        "other modality",
    )
    k: int | Literal["auto"] = Field(
        default="auto", description="neighbours that stage 1 hands to stage 2; paper: 10"
    )
    alpha: float | Literal["auto"] = Field(
        default="auto", description="weight of the similarity in the row's own modality; paper: 0.5"
    )
    examples: int = Field(default=1, ge=1, description="pairs retrieved a row")

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json")


class FusionRetriever:
    """Retrieves pairs for rows with one observed half.

    Stage 1 fetches the k nearest in the observed modality. Stage 2 orders them by
    alpha * intra + (1 - alpha) * cross.

    Parameters
    ----------
    embeddings : mapping of modality to unit rows [n, d], memory maps allowed
    indexes : mapping of modality to EmbeddingIndex over the same rows
    ids : sequence of n strings
    mapping : CrossModalMapping or None
        None: no pseudo-embeddings, alpha is 1.
    settings : RetrievalSettings
        `auto` stands for the defaults 10 and 0.5 here; `kb.leave_one_out` measures them.
    shared_space : bool
        Whether both modalities share a space, so that `cross` may compare them directly.
    """

    def __init__(
        self,
        embeddings: Mapping[Modality, Rows],
        indexes: Mapping[Modality, EmbeddingIndex],
        ids: Sequence[str] | pa.Array,
        mapping: CrossModalMapping | None = None,
        settings: RetrievalSettings | None = None,
        shared_space: bool = True,
    ) -> None:
        self.embeddings = embeddings
        self.indexes = indexes
        self.ids = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())
        self.mapping = mapping
        self.settings = settings or RetrievalSettings()
        self.shared_space = shared_space
        counts = {len(self.ids), *(len(e) for e in embeddings.values())}
        counts |= {len(index) for index in indexes.values()}
        if len(counts) > 1:
            raise ValueError(f"ids, embeddings and indexes disagree in size: {sorted(counts)}")

    @property
    def k(self) -> int:
        return DEFAULT_K if self.settings.k == "auto" else self.settings.k

    def alpha(self, modality: Modality) -> float:
        """Weight of intra; 1 where the mapping from `modality` says nothing."""
        if self.mapping is None or self.mapping.constant_[modality]:
            return 1.0
        return DEFAULT_ALPHA if self.settings.alpha == "auto" else float(self.settings.alpha)

    def search(
        self,
        embeddings: np.ndarray,
        modality: Modality,
        ids: Sequence[str] | None = None,
        m: int | None = None,
        pseudo: np.ndarray | None = None,
    ) -> Neighbours:
        """The best m pairs of each query, as arrays.

        Parameters
        ----------
        embeddings : shape [n, d of modality]
        modality : the observed one
        ids : n strings, optional
            A query never retrieves the pair of its own id.
        m : int, optional
            Default `settings.examples`.
        pseudo : float32 [n, d of the other], optional
            Pseudo-embeddings, where the caller has them already.
        """
        queries = normalise(embeddings)
        if ids is not None and len(ids) != len(queries):
            raise ValueError(f"ids must have one entry a query; got {len(ids)} for {len(queries)}")
        wanted = self.settings.examples if m is None else m
        parts = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            parts.append(
                self._search(
                    queries[part],
                    modality,
                    None if ids is None else pa.array(ids[part], pa.string()),
                    wanted,
                    None if pseudo is None else pseudo[part],
                )
            )
        if not parts:
            empty = np.empty((0, wanted), np.float32)
            return Neighbours(np.empty((0, wanted), np.int64), empty, empty, empty)
        return Neighbours(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("rows", "intra", "cross", "score")
            )
        )

    def _search(
        self,
        queries: np.ndarray,
        modality: Modality,
        ids: pa.Array | None,
        m: int,
        pseudo: np.ndarray | None,
    ) -> Neighbours:
        other = opposite(modality)
        mode = self.settings.mode
        if pseudo is None and self.mapping is not None:
            pseudo = self.mapping.map(queries, source=modality, target=other)
        if mode == "cross":
            stage_one, crossing = other, queries if self.shared_space else pseudo
            if crossing is None:
                raise ValueError("mode cross needs a mapping where the encoders share no space")
            probe = crossing
        else:
            stage_one, crossing, probe = modality, pseudo, queries
        k = max(self.k, m)
        rows, found = self._fetch(probe, stage_one, ids, k)
        if mode == "cross":
            intra, cross = self.similarities(queries, modality, rows), found
        elif crossing is None:
            intra, cross = found, np.full_like(found, np.nan)
        else:
            intra, cross = found, self.similarities(crossing, other, rows)
        first = cross if mode == "cross" else intra
        ranks = self.id_ranks(rows)
        order = order_by(first, ranks)[:, :k]
        rows, intra, cross, first, ranks = (
            np.take_along_axis(array, order, axis=1) for array in (rows, intra, cross, first, ranks)
        )
        if mode == "fusion":
            alpha = self.alpha(modality)
            score = intra if alpha == 1 else alpha * intra + (1 - alpha) * cross
        else:
            score = first
        order = order_by(score, ranks)[:, :m]
        rows, intra, cross, score = (
            np.take_along_axis(array, order, axis=1) for array in (rows, intra, cross, score)
        )
        intra, cross, score = (np.where(rows < 0, np.nan, x) for x in (intra, cross, score))
        if rows.shape[1] < m:
            gap = ((0, 0), (0, m - rows.shape[1]))
            rows = np.pad(rows, gap, constant_values=-1)
            intra, cross, score = (
                np.pad(x, gap, constant_values=np.nan) for x in (intra, cross, score)
            )
        return Neighbours(rows, intra, cross, score)

    def _fetch(
        self, probe: np.ndarray, modality: Modality, ids: pa.Array | None, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows by stage 1 and their cosines; the queries' own rows are -1 and -inf."""
        index = self.indexes[modality]
        cosines, rows = index.search(probe, k * REFINE[index.kind] + SPARE)
        if ids is not None and rows.size:
            found = self.ids.take(pa.array(rows.ravel().clip(0)))
            own = ids.take(pa.array(np.repeat(np.arange(len(rows)), rows.shape[1])))
            same = pc.equal(found, own).to_numpy(zero_copy_only=False).reshape(rows.shape)
            rows = np.where(same, -1, rows)
        if REFINE[index.kind] > 1:
            cosines = self.similarities(probe, modality, rows)
        return rows, np.where(rows < 0, -np.inf, cosines).astype(np.float32)

    def similarities(self, queries: np.ndarray, modality: Modality, rows: np.ndarray) -> np.ndarray:
        """Exact cosines of each unit query to its rows, float32 [n, k]; -inf where there is none.

        Rows are read in ascending order, so that a disk is swept once, and multiplied in blocks
        that stay in the processor's cache.
        """
        if rows.size == 0:
            return np.empty(rows.shape, np.float32)
        flat = rows.ravel().clip(0)
        order = np.argsort(flat, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        gathered = np.asarray(self.embeddings[modality][flat[order]])
        cosines = np.empty(rows.shape, dtype=np.float32)
        width = rows.shape[1]
        step = max(1, ROWS_AT_ONCE // width)
        for start in range(0, len(rows), step):
            here = place[start * width : (start + step) * width]
            block = gathered[here].astype(np.float32).reshape(-1, width, gathered.shape[1])
            norms = np.sqrt(np.einsum("nkd,nkd->nk", block, block))
            products = np.einsum("nkd,nd->nk", block, queries[start : start + step])
            cosines[start : start + step] = products / norms
        return np.where(rows < 0, -np.inf, cosines)

    def id_ranks(self, rows: np.ndarray) -> np.ndarray:
        """Integers that order the rows as their ids do."""
        if rows.size == 0:
            return rows
        found = self.ids.take(pa.array(rows.ravel().clip(0)))
        return pc.rank(found, tiebreaker="dense").to_numpy().astype(np.int64).reshape(rows.shape)

    def retrieve(
        self,
        embeddings: np.ndarray,
        modality: Modality,
        ids: Sequence[str] | None = None,
        m: int | None = None,
    ) -> list[list[Hit]]:
        """`search` as records: per query at most m hits, best first."""
        found = self.search(embeddings, modality, ids, m)
        return [
            [
                Hit(self.ids[int(row)].as_py(), int(row), float(a), float(b), float(c))
                for row, a, b, c in zip(rows, intra, cross, score, strict=True)
                if row >= 0
            ]
            for rows, intra, cross, score in zip(
                found.rows, found.intra, found.cross, found.score, strict=True
            )
        ]


def order_by(score: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Columns by descending score, ties by ascending rank, per row."""
    with np.errstate(invalid="ignore"):
        rounded = np.round(score, DECIMALS)
    return np.lexsort((ranks, -rounded), axis=1)
