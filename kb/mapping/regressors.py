"""The ways to predict one half of a pair from the other: start, ridge, residual MLP, and blend.

All are fitted on both directions at once, predict unit rows, and keep their state as plain
arrays, so that `CrossModalMapping` can compare, choose and store them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, opposite

# Relative fall of the held-out loss that counts as progress.
LEAST_GAIN = 1e-3
RIDGE_PENALTIES = tuple(10.0**power for power in np.arange(-3, 4.5, 0.5))


class Regressor(Protocol):
    """What the mapping chooses among."""

    def fit(self, pairs: Mapping[Modality, np.ndarray], random_state: int) -> Regressor: ...

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: Mapping[str, np.ndarray]) -> Regressor: ...


class Start:
    """The closed form: the mean shift where the dimensions agree, the mean where they don't.

    image to text: unit(z + mean_text - mean_image), or unit(mean_text).
    """

    def fit(self, pairs: Mapping[Modality, np.ndarray], random_state: int = 0) -> Start:
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
    diagonal of Z (Z^T Z + penalty I)^-1 Z^T over centred rows (Golub, Heath and Wahba 1979).
    """

    def fit(self, pairs: Mapping[Modality, np.ndarray], random_state: int = 0) -> Ridge:
        self.weights: dict[Modality, np.ndarray] = {}
        self.means = {m: pairs[m].mean(axis=0, dtype=np.float64) for m in MODALITIES}
        self.penalties: dict[Modality, float] = {}
        for source in MODALITIES:
            target = opposite(source)
            x = (pairs[source] - self.means[source]).astype(np.float64)
            y = (pairs[target] - self.means[target]).astype(np.float64)
            values, vectors = np.linalg.eigh(x.T @ x)
            values = values.clip(0)
            turned = x @ vectors
            moments = turned.T @ y
            errors = []
            for penalty in RIDGE_PENALTIES:
                leverage = 1 / len(x) + (turned**2) @ (1 / (values + penalty))
                residuals = y - turned @ (moments / (values + penalty)[:, None])
                residuals /= (1 - leverage).clip(1e-6)[:, None]
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


class ResidualMLP:
    """The paper's shared network on top of the closed form: unit(start(z) + g(z)).

    One trunk serves both directions; the input and output projections and a direction vector
    are each direction's own, and the output projections start at zero, so that training begins
    at the start. Loss: mean over pairs of ||f_IT(z_I) - z_T||^2 + ||f_TI(z_T) - z_I||^2. AdamW,
    dropout, and early stopping on a tenth of the pairs; `losses` has the loss on these, before the
    training and after each epoch.

    Parameters
    ----------
    width, dropout, learning_rate, weight_decay, epochs, patience, batch_size
        As in `MappingSettings`.
    device : str
        A torch device.
    """

    def __init__(
        self,
        width: int = 512,
        dropout: float = 0.1,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        epochs: int = 200,
        patience: int = 10,
        batch_size: int = 256,
        device: str = "cpu",
    ) -> None:
        self.width = width
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.device = device

    def _network(self, dimensions: Mapping[Modality, int]) -> Any:
        from torch import nn

        width = self.width
        network = nn.Module()
        network.inputs = nn.ModuleDict({m: nn.Linear(dimensions[m], width) for m in MODALITIES})
        network.directions = nn.Embedding(len(MODALITIES), width)
        nn.init.normal_(network.directions.weight, std=0.02)
        network.trunk = nn.Sequential(
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Dropout(self.dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(self.dropout),
        )
        outputs = {str(m): nn.Linear(width, dimensions[opposite(m)]) for m in MODALITIES}
        network.outputs = nn.ModuleDict(outputs)
        for layer in outputs.values():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return network

    @staticmethod
    def _correction(network: Any, rows: Any, source: Modality) -> Any:
        hidden = network.inputs[source](rows)
        hidden = hidden + network.directions.weight[MODALITIES.index(source)]
        return network.outputs[source](network.trunk(hidden))

    def fit(self, pairs: Mapping[Modality, np.ndarray], random_state: int = 0) -> ResidualMLP:
        import torch
        from torch.nn.functional import normalize

        self.start = Start().fit(pairs)
        # Fresh draws inside, and the caller's random state as it was outside.
        with torch.random.fork_rng(devices=[] if self.device == "cpu" else None):
            torch.manual_seed(random_state)
            network = self._network({m: pairs[m].shape[1] for m in MODALITIES}).to(self.device)
            rows = {m: torch.as_tensor(pairs[m], device=self.device) for m in MODALITIES}
            starts = {
                m: torch.as_tensor(self.start.unscaled(pairs[m], m), device=self.device)
                for m in MODALITIES
            }

            def loss(chosen: Any) -> Any:
                total: Any = 0.0
                for source in MODALITIES:
                    correction = self._correction(network, rows[source][chosen], source)
                    predicted = normalize(starts[source][chosen] + correction, dim=1)
                    difference = predicted - rows[opposite(source)][chosen]
                    total = total + difference.pow(2).sum(dim=1).mean()
                return total

            order = torch.randperm(len(pairs["image"]))
            held, used = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
            optimiser = torch.optim.AdamW(
                network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
            )
            network.eval()
            with torch.no_grad():
                best = float(loss(held))
            self.losses = [best]
            kept = {name: value.clone() for name, value in network.state_dict().items()}
            since = 0
            for _ in range(self.epochs):
                network.train()
                for batch in used[torch.randperm(len(used))].split(self.batch_size):
                    optimiser.zero_grad(set_to_none=True)
                    loss(batch).backward()
                    optimiser.step()
                network.eval()
                with torch.no_grad():
                    figure = float(loss(held))
                self.losses.append(figure)
                if figure < best * (1 - LEAST_GAIN):
                    best, since = figure, 0
                    kept = {name: value.clone() for name, value in network.state_dict().items()}
                else:
                    since += 1
                    if since >= self.patience:
                        break
            network.load_state_dict(kept)
        self.network = network.eval()
        return self

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        import torch

        with torch.inference_mode():
            tensor = torch.as_tensor(np.asarray(rows, np.float32), device=self.device)
            correction = self._correction(self.network, tensor, source).cpu().numpy()
        return normalise(self.start.unscaled(rows, source) + correction)

    def state(self) -> dict[str, np.ndarray]:
        network = {f"network.{k}": v.cpu().numpy() for k, v in self.network.state_dict().items()}
        return self.start.state() | network

    def restore(self, state: Mapping[str, np.ndarray]) -> ResidualMLP:
        import torch

        self.start = Start().restore(state)
        network = self._network({m: len(self.start.means[m]) for m in MODALITIES})
        network.load_state_dict(
            {
                name.removeprefix("network."): torch.as_tensor(value)
                for name, value in state.items()
                if name.startswith("network.")
            }
        )
        self.network = network.to(self.device).eval()
        return self


class Blend(ResidualMLP):
    """The mean of what the closed form and the network predict.

    A network fitted to few pairs corrects too much; half of it is left out.
    """

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        return blended(self.start.predict(rows, source), super().predict(rows, source))


def blended(start: np.ndarray, network: np.ndarray) -> np.ndarray:
    """What `Blend` predicts, from unit predictions of both, float32 [n, d]."""
    return normalise(start + network)
