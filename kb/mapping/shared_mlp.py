"""The network that predicts one half of a pair from the other, and its blend with the closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, opposite
from kb.mapping.regressors import Start

# Relative fall of the held-out loss that counts as progress.
LEAST_GAIN = 1e-3


class SharedMLP:
    """The paper's shared network: unit(g(z)), or on top of the closed form unit(start(z) + g(z)).

    One trunk serves both directions; the input and output projections and a direction vector
    are each direction's own. Where it is residual the output projections start at zero, so that
    training begins at the start. Loss: mean over pairs of ||f_IT(z_I) - z_T||^2 + ||f_TI(z_T) - z_I||^2. AdamW,
    dropout, and early stopping on a tenth of the pairs; `losses` has the loss on these, before the
    training and after each epoch.

    Parameters
    ----------
    residual, width, dropout, learning_rate, weight_decay, epochs, patience, batch_size
        As in `MappingSettings`.
    device : str
        A torch device.
    """

    def __init__(
        self,
        residual: bool = True,
        width: int = 512,
        dropout: float = 0.1,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        epochs: int = 200,
        patience: int = 10,
        batch_size: int = 256,
        device: str = "cpu",
    ) -> None:
        self.residual = residual
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
        for layer in outputs.values() if self.residual else ():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return network

    def _base(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        """What the network's output is added to, float32 [n, d of the target]."""
        unscaled = self.start.unscaled(rows, source)
        return unscaled if self.residual else np.zeros_like(unscaled)

    @staticmethod
    def _correction(network: Any, rows: Any, source: Modality) -> Any:
        hidden = network.inputs[source](rows)
        hidden = hidden + network.directions.weight[MODALITIES.index(source)]
        return network.outputs[source](network.trunk(hidden))

    def fit(
        self,
        pairs: Mapping[Modality, np.ndarray],
        random_state: int = 0,
        groups: np.ndarray | None = None,
    ) -> SharedMLP:
        import torch
        from torch.nn.functional import normalize

        self.start = Start().fit(pairs)
        # Fresh draws inside, and the caller's random state as it was outside.
        with torch.random.fork_rng(devices=[] if self.device == "cpu" else None):
            torch.manual_seed(random_state)
            network = self._network({m: pairs[m].shape[1] for m in MODALITIES}).to(self.device)
            rows = {m: torch.as_tensor(pairs[m], device=self.device) for m in MODALITIES}
            starts = {
                m: torch.as_tensor(self._base(pairs[m], m), device=self.device) for m in MODALITIES
            }

            def loss(chosen: Any) -> Any:
                total: Any = 0.0
                for source in MODALITIES:
                    correction = self._correction(network, rows[source][chosen], source)
                    predicted = normalize(starts[source][chosen] + correction, dim=1)
                    difference = predicted - rows[opposite(source)][chosen]
                    total = total + difference.pow(2).sum(dim=1).mean()
                return total

            held, used = self._held_out(len(pairs["image"]), groups)
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

    @staticmethod
    def _held_out(count: int, groups: np.ndarray | None) -> tuple[Any, Any]:
        """Rows of a tenth of the groups, and the others, in a random order of groups."""
        import torch

        numbers = (
            torch.arange(count)
            if groups is None
            else torch.as_tensor(np.unique(groups, return_inverse=True)[1])
        )
        place = torch.randperm(int(numbers.max()) + 1).argsort()[numbers]
        held = place < max(1, (int(numbers.max()) + 1) // 10)
        rows = place.argsort(stable=True)
        return rows[held[rows]], rows[~held[rows]]

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        import torch

        with torch.inference_mode():
            tensor = torch.as_tensor(np.asarray(rows, np.float32), device=self.device)
            correction = self._correction(self.network, tensor, source).cpu().numpy()
        return normalise(self._base(rows, source) + correction)

    def state(self) -> dict[str, np.ndarray]:
        network = {f"network.{k}": v.cpu().numpy() for k, v in self.network.state_dict().items()}
        return self.start.state() | network

    def restore(self, state: Mapping[str, np.ndarray]) -> SharedMLP:
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


class Blend(SharedMLP):
    """The mean of what the closed form and the network predict.

    A network fitted to few pairs corrects too much; half of it is left out.
    """

    def predict(self, rows: np.ndarray, source: Modality) -> np.ndarray:
        return blended(self.start.predict(rows, source), super().predict(rows, source))


def blended(start: np.ndarray, network: np.ndarray) -> np.ndarray:
    """What `Blend` predicts, from unit predictions of both, float32 [n, d]."""
    return normalise(start + network)
