"""What a regressor is, and the simplest: the shift of the means.

All are fitted on both directions at once, predict unit rows, and keep their state as plain
arrays, so that `CrossModalMapping` can compare, choose and store them alike. What they hold out
to choose by, they hold out with its whole group: `groups` are int [n], by default no two rows' same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, opposite


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
