"""What a regressor is, and the two closed forms that predict one half of a pair from the other.

All are fitted on both directions at once, predict unit rows, and keep their state as plain
arrays, so that `CrossModalMapping` can compare, choose and store them alike. What they hold out
to choose by, they hold out with its whole group: `groups` are int [n], by default no two rows' same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, opposite
from kb.mapping.moments import Moments

RIDGE_PENALTIES = tuple(10.0**power for power in np.arange(-3, 4.5, 0.5))


class Regressor(Protocol):
    """What the mapping chooses among."""

    def fit(
        self,
        pairs: Mapping[Modality, np.ndarray],
        random_state: int,
        groups: np.ndarray | None = None,
    ) -> Regressor: ...

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: Mapping[str, np.ndarray]) -> Regressor: ...


class Start:
    """The closed form: the mean shift where the dimensions agree, the mean where they don't.

    image to text: unit(z + mean_text - mean_image), or unit(mean_text).
    """

    def fit(
        self,
        pairs: Mapping[Modality, np.ndarray],
        random_state: int = 0,
        groups: np.ndarray | None = None,
    ) -> Start:
        self.means = {m: pairs[m].mean(axis=0, dtype=np.float64) for m in MODALITIES}
        return self

    @property
    def constant(self) -> bool:
        """True where the dimensions differ, and the prediction does not depend on the row."""
        return len(self.means["image"]) != len(self.means["text"])

    def unscaled(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        """The prediction before it is scaled to unit length, float32 [n, d of the target]."""
        goal = self.means[opposite(source)]
        if self.constant:
            return np.tile(goal.astype(np.float32), (len(rows), 1))
        return rows + (goal - self.means[source]).astype(np.float32)

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        return normalise(self.unscaled(rows, source), copy=False)

    def state(self) -> dict[str, np.ndarray]:
        return {f"mean_{m}": self.means[m] for m in MODALITIES}

    def restore(self, state: Mapping[str, np.ndarray]) -> Start:
        self.means = {m: state[f"mean_{m}"] for m in MODALITIES}
        return self


class Ridge:
    """Linear regression with an L2 penalty, chosen per direction by leave-one-out error.

    The leave-one-out residual of row i is (y_i - p_i) / (1 - h_ii), h_ii = 1/n + the i-th
    diagonal of H = Z (Z^T Z + penalty I)^-1 Z^T over centred rows (Golub, Heath and Wahba 1979).
    The rows G of a group leave together: their residuals are (I - H_GG)^-1 (y_G - p_G).

    Parameters
    ----------
    external : Moments, optional
        Of pairs that are fitted as well, by their weights, and never left out: n is then the sum
        of all weights.
    """

    def __init__(self, external: Moments | None = None) -> None:
        self.external = external

    def fit(
        self,
        pairs: Mapping[Modality, np.ndarray],
        random_state: int = 0,
        groups: np.ndarray | None = None,
    ) -> Ridge:
        blocks = _blocks(groups)
        rows = {m: pairs[m].astype(np.float64) for m in MODALITIES}
        fitted = Moments.of([rows], {m: rows[m].shape[1] for m in MODALITIES})
        if self.external is not None:
            fitted += self.external
        self.weights: dict[Modality, np.ndarray] = {}
        self.means = {m: fitted.mean(m) for m in MODALITIES}
        self.penalties: dict[Modality, float] = {}
        for source in MODALITIES:
            target = opposite(source)
            y = rows[target] - self.means[target]
            squares, products = fitted.scatter(source)
            values, vectors = np.linalg.eigh(squares)
            values = values.clip(0)
            turned = (rows[source] - self.means[source]) @ vectors
            moments = vectors.T @ products
            errors = []
            for penalty in RIDGE_PENALTIES:
                leverage = 1 / fitted.weight + (turned**2) @ (1 / (values + penalty))
                residuals = y - turned @ (moments / (values + penalty)[:, None])
                together = [
                    _left_out(turned[b], residuals[b], values + penalty, fitted.weight)
                    for b in blocks
                ]
                residuals /= (1 - leverage).clip(1e-6)[:, None]
                for block, left_out in zip(blocks, together, strict=True):
                    residuals[block] = left_out
                errors.append(float(np.mean(np.sum(residuals**2, axis=1))))
            best = RIDGE_PENALTIES[int(np.argmin(errors))]
            self.penalties[source] = best
            weights = vectors @ (moments / (values + best)[:, None])
            self.weights[source] = weights.astype(np.float32)
        return self

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        import torch

        weights = self.weights[source]
        shift = self.means[opposite(source)] - self.means[source] @ weights.astype(np.float64)
        # numpy's product would leave a thread behind that takes the processor from what follows.
        predicted = torch.addmm(
            torch.from_numpy(shift.astype(np.float32)),
            torch.from_numpy(np.ascontiguousarray(rows)),
            torch.from_numpy(weights),
        )
        return normalise(predicted.numpy(), copy=False)

    def state(self) -> dict[str, np.ndarray]:
        state = {f"mean_{m}": self.means[m] for m in MODALITIES}
        state |= {f"weights_{m}": self.weights[m] for m in MODALITIES}
        state |= {f"penalty_{m}": np.array([self.penalties[m]]) for m in MODALITIES}
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> Ridge:
        self.means = {m: state[f"mean_{m}"] for m in MODALITIES}
        self.weights = {m: state[f"weights_{m}"] for m in MODALITIES}
        self.penalties = {m: float(state[f"penalty_{m}"][0]) for m in MODALITIES}
        return self


def _blocks(groups: np.ndarray | None, rows: int = 4096) -> list[np.ndarray]:
    """Row numbers of the groups of more than one row, int64 [g, s] by size, some thousand rows each."""
    if groups is None:
        return []
    order = np.argsort(groups, kind="stable")
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    blocks = []
    for size in np.unique(sizes[sizes > 1]).tolist():
        of_size = order[first[sizes == size][:, None] + np.arange(size)]
        blocks += np.array_split(of_size, -(-of_size.size // rows))
    return blocks


def _left_out(
    turned: np.ndarray, residuals: np.ndarray, penalised: np.ndarray, weight: float
) -> np.ndarray:
    """Residuals of groups by fits without them, float64 [g, s, d]; see `Ridge`.

    `turned` [g, s, e] are centred rows in the basis of eigenvectors, `penalised` [e] the eigenvalues
    with the penalty, `weight` that of all rows that were fitted.
    """
    size = turned.shape[1]
    own = (turned / penalised) @ turned.transpose(0, 2, 1) + 1 / weight
    return np.linalg.solve((1 + 1e-6) * np.eye(size) - own, residuals)
