"""Ridge regression from one half of a pair to the other, on internal pairs and on external ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, opposite
from kb.mapping.moments import Moments

RIDGE_PENALTIES = tuple(10.0**power for power in np.arange(-3, 4.5, 0.5))


class Ridge:
    """Linear regression with an L2 penalty, chosen per direction by leave-one-out error.

    The leave-one-out residual of row i is (y_i - p_i) / (1 - h_ii), h_ii = 1/n + the i-th
    diagonal of H = Z (Z^T Z + penalty I)^-1 Z^T over centred rows (Golub, Heath and Wahba 1979).
    The rows G of a group leave together: their residuals are (I - H_GG)^-1 (y_G - p_G). A row that
    was fitted with a weight has that times h.

    Parameters
    ----------
    external : Moments, optional
        Of pairs that are fitted as well, by their weights, and by which no penalty is chosen: n is
        then the sum of all weights.
    """

    def __init__(self, external: Moments | None = None) -> None:
        self.external = external

    def fit(
        self,
        pairs: Mapping[Modality, np.ndarray],
        random_state: int = 0,
        groups: np.ndarray | None = None,
    ) -> Ridge:
        rows = {m: pairs[m].astype(np.float64) for m in MODALITIES}
        fitted = Moments.of([rows], {m: rows[m].shape[1] for m in MODALITIES})
        if self.external is not None:
            fitted += self.external
        self.weights: dict[Modality, np.ndarray] = {}
        self.means = {m: fitted.mean(m) for m in MODALITIES}
        self.penalties: dict[Modality, float] = {}
        self._solved: dict[Modality, _Solved] = {}
        blocks = _blocks(groups)
        for source in MODALITIES:
            solved = _Solved(fitted, source)
            x = (rows[source] - self.means[source]) @ solved.vectors
            y = rows[opposite(source)] - self.means[opposite(source)]
            if not blocks:
                # Enough to tell which penalty errs least; the systems of groups need more.
                x, y = x.astype(np.float32), y.astype(np.float32)
            errors = [
                float(np.mean(np.sum(solved.left_out(x, y, penalty, blocks) ** 2, axis=1)))
                for penalty in RIDGE_PENALTIES
            ]
            best = RIDGE_PENALTIES[int(np.argmin(errors))]
            self.penalties[source] = best
            self.weights[source] = (solved.vectors @ solved.turned(best)).astype(np.float32)
            self._solved[source] = solved
        return self

    def left_out(
        self,
        pairs: Mapping[Modality, np.ndarray],
        source: Modality,
        groups: np.ndarray | None = None,
        weight: float = 1.0,
    ) -> np.ndarray:
        """What fits without each pair's group miss of its other half, float32 [n, d of the target].

        Parameters
        ----------
        pairs : per modality unit rows [n, d]
            That were fitted, each with this weight: internal ones, or those behind `external`.
        source : the modality to predict from
        groups : int [n], optional
        weight : float
        """
        solved = self._solved[source]
        x = (pairs[source] - self.means[source]) @ solved.vectors
        y = pairs[opposite(source)] - self.means[opposite(source)]
        missed = solved.left_out(x, y, self.penalties[source], _blocks(groups), weight)
        return missed.astype(np.float32)

    def unscaled(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        """The prediction before it is scaled to unit length, float32 [n, d of the target]."""
        import torch

        weights = self.weights[source]
        shift = self.means[opposite(source)] - self.means[source] @ weights.astype(np.float64)
        # numpy's product would leave a thread behind that takes the processor from what follows.
        predicted = torch.addmm(
            torch.from_numpy(shift.astype(np.float32)),
            torch.from_numpy(np.ascontiguousarray(rows)),
            torch.from_numpy(weights),
        )
        return np.asarray(predicted.numpy())

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        return normalise(self.unscaled(rows, source), copy=False)

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


class _Solved:
    """The normal equations from one modality, in the basis of their eigenvectors."""

    def __init__(self, fitted: Moments, source: Modality) -> None:
        squares, products = fitted.scatter(source)
        values, self.vectors = np.linalg.eigh(squares)
        self.values = values.clip(0)
        self.products = self.vectors.T @ products
        self.total = fitted.weight

    def turned(self, penalty: float) -> np.ndarray:
        """The weights of the regression in this basis, float64 [d, d of the target]."""
        return np.asarray(self.products / (self.values + penalty)[:, None])

    def left_out(
        self,
        x: np.ndarray,
        y: np.ndarray,
        penalty: float,
        blocks: Sequence[np.ndarray],
        weight: float = 1.0,
    ) -> np.ndarray:
        """Residuals of centred rows, `x` in this basis, by fits without them, [n, d]."""
        penalised = self.values + penalty
        residuals = y - x @ self.turned(penalty).astype(x.dtype)
        leverage = 1 / self.total + (x**2) @ (1 / penalised).astype(x.dtype)
        alone = residuals / (1 - weight * leverage).clip(1e-6)[:, None]
        for block in blocks:
            own, size = x[block], block.shape[1]
            shared = (own / penalised) @ own.transpose(0, 2, 1) + 1 / self.total
            kept = (1 + 1e-6) * np.eye(size) - weight * shared
            alone[block] = np.linalg.solve(kept, residuals[block])
        return np.asarray(alone)


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
