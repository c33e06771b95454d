"""Fusions that are learned: by a gate for each query, or by attention between query and candidates.

Both start at the fusion by score, alpha * intra + (1 - alpha) * cross, and are trained on complete
pairs that are left out: what is expected of an example that is drawn with probability
softmax(score / TEMPERATURE), the likeness of its other half to the true one, is to be as high as
can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kb.index.stored_rows import StoredRows, each_gathered

TEMPERATURE = 0.02
# Of the gate, of attention's projections, and the numbers that these have for query and candidate.
GATE_PENALTY = 1e-3
DECAY = 1e-2
RANK = 16
EPOCHS = 200
PATIENCE = 10


@dataclass(frozen=True)
class Found:
    """What stage 1 found for queries of one modality.

    Attributes
    ----------
    queries, pseudo : float32 [n, d] and [n, e]
        Unit rows of the observed modality, and what is predicted of the other.
    rows : int64 [n, k]
        Negative where there is none.
    intra, cross : float32 [n, k]
        Cosines of the query, and of its pseudo-embedding, to a candidate's halves.
    observed, sought : shapes [m, d] and [m, e]
        Both halves of all pairs; may be memory maps.
    """

    queries: np.ndarray
    pseudo: np.ndarray
    rows: np.ndarray
    intra: np.ndarray
    cross: np.ndarray
    observed: StoredRows
    sought: StoredRows

    def of(self, part: np.ndarray) -> Found:
        """Some of the queries."""
        own = (self.queries, self.pseudo, self.rows, self.intra, self.cross)
        queries, pseudo, rows, intra, cross = (array[part] for array in own)
        return Found(queries, pseudo, rows, intra, cross, self.observed, self.sought)


class Fusion(Protocol):
    """Scores candidates, float32 [n, k]; -inf where there is none."""

    def fit(self, found: Found, truth: np.ndarray, alpha: float) -> Fusion: ...

    def score(self, found: Found) -> np.ndarray: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: Mapping[str, np.ndarray]) -> Fusion: ...


class Gate:
    """alpha of its own for each query: a logistic regression on how its candidates' cosines lie.

    It sees the largest, the mean and the deviation of intra and of cross over the candidates.
    """

    def fit(self, found: Found, truth: np.ndarray, alpha: float) -> Gate:
        """Learns from candidates, their likeness to the truth `truth` [n, k], and alpha to start at."""
        import torch

        raw = _shape(found)
        self.mean, self.deviation = raw.mean(axis=0), raw.std(axis=0).clip(1e-6)
        features = torch.from_numpy(np.float32((raw - self.mean) / self.deviation))
        intra, cross, there = map(torch.from_numpy, (found.intra, found.cross, found.rows >= 0))
        goal = torch.from_numpy(np.where(found.rows >= 0, truth, 0).astype(np.float32))
        start = float(np.log(np.clip(alpha, 0.02, 0.98) / (1 - np.clip(alpha, 0.02, 0.98))))
        weights = torch.zeros(features.shape[1], requires_grad=True)
        bias = torch.tensor([start], requires_grad=True)
        optimiser = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Any:
            optimiser.zero_grad()
            own = torch.sigmoid(features @ weights + bias)[:, None]
            value = _missed(own * intra + (1 - own) * cross, goal, there)
            value = value + GATE_PENALTY * weights.pow(2).sum()
            value.backward()
            return value

        optimiser.step(loss)
        self.weights, self.bias = weights.detach().numpy(), float(bias.detach())
        return self

    def alpha(self, found: Found) -> np.ndarray:
        """Per query, [n]."""
        features = (_shape(found) - self.mean) / self.deviation
        return np.asarray(1 / (1 + np.exp(-(features @ self.weights + self.bias))))

    def score(self, found: Found) -> np.ndarray:
        return _fused(found, self.alpha(found)[:, None].astype(np.float32))

    def state(self) -> dict[str, np.ndarray]:
        line = np.array([self.bias])
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "weights": self.weights,
            "bias": line,
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> Gate:
        self.mean, self.deviation = state["mean"], state["deviation"]
        self.weights, self.bias = state["weights"], float(state["bias"][0])
        return self


class Attention:
    """To the score is added (A q_i) · (B c_j), q and c being both halves of query and candidate.

    A and B, of `RANK` rows, are trained by AdamW until a fifth of the queries gains no more.
    """

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, found: Found, truth: np.ndarray, alpha: float) -> Attention:
        """Learns from candidates, their likeness to the truth `truth` [n, k], and alpha of the score."""
        import torch

        self.start = alpha
        there = torch.from_numpy(found.rows >= 0)
        base = torch.from_numpy(np.where(found.rows >= 0, _fused(found, alpha), np.float32(0)))
        goal = torch.from_numpy(np.where(found.rows >= 0, truth, 0).astype(np.float32))
        queries = torch.from_numpy(np.concatenate([found.queries, found.pseudo], axis=1))
        distinct, place = np.unique(found.rows.clip(0), return_inverse=True)
        rows = torch.from_numpy(place.reshape(found.rows.shape))
        held_rows = torch.from_numpy(_halves(found, distinct))
        generator = torch.Generator().manual_seed(self.random_state)
        width = queries.shape[1]
        a = torch.randn(width, RANK, generator=generator).div_(width**0.5).requires_grad_()
        b = torch.zeros(width, RANK, requires_grad=True)
        order = torch.randperm(len(queries), generator=generator)
        held, used = order[: len(order) // 5], order[len(order) // 5 :]
        optimiser = torch.optim.AdamW([a, b], lr=3e-3, weight_decay=DECAY)

        def loss(some: Any) -> Any:
            added = torch.einsum("nr,nkr->nk", queries[some] @ a, (held_rows @ b)[rows[some]])
            return _missed(base[some] + added, goal[some], there[some])

        def held_loss() -> float:
            with torch.no_grad():
                return float(loss(held))

        best, kept, since = held_loss(), (a.detach().clone(), b.detach().clone()), 0
        for _ in range(EPOCHS):
            optimiser.zero_grad()
            loss(used).backward()
            optimiser.step()
            figure = held_loss()
            since += 1
            if figure < best - 1e-5:
                best, kept, since = figure, (a.detach().clone(), b.detach().clone()), 0
            if since >= PATIENCE:
                break
        self.a, self.b = (weights.numpy() for weights in kept)
        return self

    def score(self, found: Found) -> np.ndarray:
        asked = np.concatenate([found.queries, found.pseudo], axis=1) @ self.a
        added = np.zeros(found.rows.shape, np.float32)
        width = found.queries.shape[1]
        for base, weights in ((found.observed, self.b[:width]), (found.sought, self.b[width:])):
            # (A q) · (B c) is (B^T A q) · c.
            probes = asked @ weights.T

            def add(part: slice, vectors: np.ndarray, probes: np.ndarray = probes) -> None:
                added[part] += np.vecdot(vectors, probes[part, None])

            each_gathered(base, found.rows, add)
        return np.asarray(_fused(found, self.start) + added)

    def state(self) -> dict[str, np.ndarray]:
        return {"a": self.a, "b": self.b, "alpha": np.array([self.start])}

    def restore(self, state: Mapping[str, np.ndarray]) -> Attention:
        self.a, self.b, self.start = state["a"], state["b"], float(state["alpha"][0])
        return self


FUSIONS: Mapping[str, Callable[[], Fusion]] = {"attention": Attention, "gate": Gate}


def _halves(found: Found, rows: np.ndarray) -> np.ndarray:
    """Both halves of some pairs side by side, float32 [r, d + e]."""
    halves = []
    for base in (found.observed, found.sought):
        gathered = np.empty((len(rows), base.shape[1]), base.dtype)
        base.take(rows, axis=0, out=gathered, mode="clip")
        halves.append(gathered.astype(np.float32))
    return np.concatenate(halves, axis=1)


def _fused(found: Found, alpha: Any) -> np.ndarray:
    """alpha * intra + (1 - alpha) * cross, float32 [n, k]; -inf where there is no candidate."""
    intra, cross = (np.where(found.rows < 0, np.float32(0), x) for x in (found.intra, found.cross))
    fused = (alpha * intra + (1 - alpha) * cross).astype(np.float32)
    return np.where(found.rows < 0, np.float32(-np.inf), fused)


def _shape(found: Found) -> np.ndarray:
    """How the cosines of a query's candidates lie, [n, 6]."""
    columns = []
    there = found.rows >= 0
    count = there.sum(axis=1).clip(1)
    for cosines in (found.intra, found.cross):
        values = np.where(there, cosines, np.float32(0))
        mean = values.sum(axis=1) / count
        square = ((values - mean[:, None]) ** 2 * there).sum(axis=1) / count
        columns += [values.max(axis=1), mean, np.sqrt(square)]
    return np.stack(columns, axis=1)


def _missed(score: Any, truth: Any, there: Any) -> Any:
    """Less the likeness to the truth that is expected of an example, in the mean over the queries."""
    import torch

    attention = (score / TEMPERATURE).masked_fill(~there, -torch.inf).softmax(dim=1)
    return -(attention.nan_to_num() * truth).sum(dim=1).mean()
