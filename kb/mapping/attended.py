"""Ridge regression corrected by what it misses at the pairs that are nearest to the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, sample_rows
from kb.mapping.moments import Moments
from kb.mapping.ridge import Ridge

# Experts of either side at most: every query is compared with all of them.
EXPERTS = 4096
# Of these the nearest that count, and how sharply: exp(cosine / temperature).
NEAREST = 64
TEMPERATURES = (0.01, 0.02, 0.05, 0.1)
# Pairs that the temperature is chosen by.
TUNED_BY = 2000


@dataclass(frozen=True)
class External:
    """What a mapping is fitted to of the external pairs that were kept.

    Attributes
    ----------
    moments : Moments
        Of all of them.
    rows : dict
        Per modality some of them, float32 [e, d].
    groups : int64 [e]
        Of these: equal numbers where they share a half.
    """

    moments: Moments
    rows: Mapping[Modality, np.ndarray]
    groups: np.ndarray


class Attended:
    """f(z) = unit(r(z) + g Σ a_j e_j): ridge regression r, and what it misses near the query.

    The experts j are pairs that r was fitted to; e_j = y_j - r(z_j) by fits without j and its
    group, and the attention a_j is the softmax of cos(z, z_j) / T over the nearest. Per direction
    T and the gain g, from 0 to 1, are those of least error on the internal pairs, each predicted
    without its own group. So a query is corrected as much as the fit errs alike at its neighbours.

    Parameters
    ----------
    external : External, optional
        Pairs that are fitted, and are experts, as well.
    weight : float
        Of each external pair in the fit.
    ridge : Ridge, optional
        One that is fitted to the same pairs with the same weight already.
    """

    def __init__(
        self, external: External | None = None, weight: float = 0.0, ridge: Ridge | None = None
    ) -> None:
        self.external = external if weight else None
        self.weight = weight
        self.ridge = ridge

    def fit(
        self,
        pairs: Mapping[Modality, np.ndarray],
        random_state: int = 0,
        groups: np.ndarray | None = None,
    ) -> Attended:
        if self.ridge is None:
            moments = self.external.moments.scaled(self.weight) if self.external else None
            self.ridge = Ridge(moments).fit(pairs, random_state, groups)
        count = len(pairs["image"])
        groups = np.arange(count) if groups is None else groups
        own = sample_rows(count, EXPERTS, random_state)
        tuned = sample_rows(len(own), TUNED_BY, random_state)
        groups_of = groups[own]
        if self.external is not None:
            groups_of = np.concatenate([groups_of, self.external.groups + groups.max() + 1])
        self.keys: dict[Modality, np.ndarray] = {}
        self.missed: dict[Modality, np.ndarray] = {}
        self.temperatures: dict[Modality, float] = {}
        self.gains: dict[Modality, float] = {}
        for source in MODALITIES:
            keys = [pairs[source][own]]
            missed = [self.ridge.left_out(pairs, source, groups)[own]]
            if self.external is not None:
                rows = self.external.rows
                keys.append(rows[source])
                missed.append(self.ridge.left_out(rows, source, self.external.groups, self.weight))
            # As they are stored, so that a saved mapping maps alike.
            self.keys[source] = np.concatenate(keys).astype(np.float16).astype(np.float32)
            self.missed[source] = np.concatenate(missed).astype(np.float16).astype(np.float32)
            self._tune(source, tuned, groups_of)
        return self

    def _tune(self, source: Modality, rows: np.ndarray, groups: np.ndarray) -> None:
        """Sets temperature and gain by these rows of the experts, the first of which are internal."""
        truth = self.missed[source][rows]
        errors = []
        queries = self.keys[source][rows]
        tried = self._attention(queries, source, TEMPERATURES, groups, rows)
        for temperature, found in zip(TEMPERATURES, tried, strict=True):
            square = float(np.vdot(found, found))
            gain = min(max(float(np.vdot(found, truth)) / max(square, 1e-12), 0.0), 1.0)
            errors.append((float(np.sum((truth - gain * found) ** 2)), temperature, gain))
        _, self.temperatures[source], self.gains[source] = min(errors)

    def _attention(
        self,
        queries: np.ndarray,
        source: Modality,
        temperatures: Sequence[float],
        groups: np.ndarray | None = None,
        own: np.ndarray | None = None,
        block: int = 1024,
    ) -> list[np.ndarray]:
        """Σ a_j e_j for each query by each temperature, float32 [n, d] each.

        Queries that are the experts `own` go without those of their groups.
        """
        import torch
        from torch.nn.functional import embedding_bag

        keys = torch.from_numpy(self.keys[source])
        missed = torch.from_numpy(self.missed[source])
        parts: list[list[np.ndarray]] = [[] for _ in temperatures]
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            cosines = torch.from_numpy(np.ascontiguousarray(queries[part])) @ keys.T
            if groups is not None and own is not None:
                same = groups[own[part], None] == groups
                cosines[torch.from_numpy(same)] = -torch.inf
            nearest = cosines.topk(min(NEAREST, len(keys)), dim=1)
            for temperature, found in zip(temperatures, parts, strict=True):
                # Where a query has no expert but its own group, nothing is added.
                attention = (nearest.values / temperature).softmax(dim=1).nan_to_num()
                summed = embedding_bag(
                    nearest.indices, missed, per_sample_weights=attention, mode="sum"
                )
                found.append(summed.numpy())
        return [np.concatenate(found) for found in parts]

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        assert self.ridge is not None
        predicted = self.ridge.unscaled(rows, source)
        if self.gains[source] > 0:
            (found,) = self._attention(rows, source, [self.temperatures[source]])
            predicted = predicted + self.gains[source] * found
        return normalise(predicted, copy=False)

    def state(self) -> dict[str, np.ndarray]:
        assert self.ridge is not None
        state = dict(self.ridge.state())
        for m in MODALITIES:
            state[f"keys_{m}"] = self.keys[m].astype(np.float16)
            state[f"missed_{m}"] = self.missed[m].astype(np.float16)
            state[f"attention_{m}"] = np.array([self.temperatures[m], self.gains[m]])
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> Attended:
        self.ridge = Ridge().restore(state)
        self.keys = {m: state[f"keys_{m}"].astype(np.float32) for m in MODALITIES}
        self.missed = {m: state[f"missed_{m}"].astype(np.float32) for m in MODALITIES}
        self.temperatures = {m: float(state[f"attention_{m}"][0]) for m in MODALITIES}
        self.gains = {m: float(state[f"attention_{m}"][1]) for m in MODALITIES}
        return self
