"""Alignment of an external domain to the internal one: one rotation per modality.

Pairs are mutual nearest neighbours under CSLS, the rotation is the regularised orthogonal
Procrustes solution, and both are repeated until the rotation stands still (Conneau et al. 2018,
"Word Translation Without Parallel Data", sections 2.2 and 2.3).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kb.alignment.csls import mutual_neighbours
from kb.device import resolve_device
from kb.embeddings import Rows, normalise, take
from kb.storage import load_state, save_state

logger = logging.getLogger(__name__)

GAMMAS = (0.0, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
# A gain measured on fewer pairs than this cannot be told from chance.
FEWEST_PAIRS = 16


class AlignmentSettings(BaseModel):
    """How external embeddings are brought into the internal domain."""

    model_config = ConfigDict(extra="forbid")

    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        default="auto",
        description="weight of the pull towards the identity; auto: measured on held-out pairs; "
        "0: the paper's plain Procrustes",
    )
    neighbours: int = Field(default=10, ge=1, description="k of CSLS")
    rounds: int = Field(default=10, ge=1, description="most rounds of pairs and rotation")
    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="stop when the rotation moves less than this (Frobenius norm)",
    )
    sample: int = Field(
        default=10_000, ge=2, description="rows a side that the rotation is fitted on at most"
    )

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json")


def procrustes(source: np.ndarray, target: np.ndarray, gamma: float = 0.0) -> np.ndarray:
    """The orthogonal matrix that brings paired rows together: source @ W is close to target.

    W = argmin over O(d) of ||target - source W||_F^2 + gamma p ||W - I||_F^2 = U V^T from the SVD
    of source^T target + gamma p I, p being the number of pairs (Schönemann 1966; the second term
    is the pull towards the identity).

    Parameters
    ----------
    source, target : shapes [p, d], row i of one belongs to row i of the other
    gamma : float
        0 or larger.

    Returns
    -------
    float32 [d, d]
        An orthogonal matrix; reflections are allowed.
    """
    if source.shape != target.shape or source.ndim != 2:
        raise ValueError(
            f"source and target must have one shape [p, d]; got {source.shape} and {target.shape}"
        )
    if not gamma >= 0:
        raise ValueError(f"gamma must be 0 or larger; got {gamma}")
    return _rotation(_cross_product(source, target), len(source), gamma)


def _cross_product(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return source.T.astype(np.float64) @ target.astype(np.float64)


def _rotation(cross_product: np.ndarray, pairs: int, gamma: float) -> np.ndarray:
    pulled = cross_product + gamma * pairs * np.eye(len(cross_product))
    left, _, right = np.linalg.svd(pulled)
    return (left @ right).astype(np.float32)


class OrthogonalAlignment:
    """Brings external embeddings of one modality into the internal domain.

    Parameters
    ----------
    settings : AlignmentSettings
    random_state : int
        Seeds the sample and the halves that gamma is measured on.
    device : str
        Where the products run: auto, cpu, cuda.

    Attributes
    ----------
    rotation_ : float32 [d, d]
        transform(z) = unit(z @ rotation_).
    gamma_ : float or None
        The weight used; None when the identity was kept.
    history_ : list of dict
        Per round: pairs, mean cosine of the pairs before and after, change of the rotation.
    gains_ : list of dict
        Per gamma: held-out gain in cosine and its standard error; empty for a given gamma.

    References
    ----------
    Conneau et al. 2018, "Word Translation Without Parallel Data" (MUSE).
    """

    def __init__(
        self,
        settings: AlignmentSettings | None = None,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.settings = settings or AlignmentSettings()
        self.random_state = random_state
        self.device = device

    def fit(
        self, internal: Rows, external: Rows, start: np.ndarray | None = None
    ) -> OrthogonalAlignment:
        """Learns the rotation.

        Parameters
        ----------
        internal, external : shapes [n, d] and [m, d]
            Not paired. May be memory maps; at most `settings.sample` rows a side are read.
        start : float32 [d, d], optional
            A rotation to form the first pairs with, from an earlier fit.

        Raises
        ------
        ValueError
            The dimensions differ, or a side is empty.
        """
        if internal.shape[1] != external.shape[1]:
            raise ValueError(
                "internal and external embeddings must agree in dimension; "
                f"got {internal.shape[1]} and {external.shape[1]}"
            )
        if len(internal) == 0 or len(external) == 0:
            raise ValueError(
                "alignment needs embeddings on both sides; "
                f"got {len(internal)} internal and {len(external)} external"
            )
        generator = np.random.default_rng(self.random_state)
        target = self._sample(internal, generator)
        source = self._sample(external, generator)
        device = resolve_device(self.device)
        identity = np.eye(target.shape[1], dtype=np.float32)
        rotation = identity if start is None else np.asarray(start, dtype=np.float32)
        self.history_: list[dict[str, Any]] = []
        self.gains_: list[dict[str, Any]] = []
        gamma: float | None = None
        for number in range(1, self.settings.rounds + 1):
            turned = source if rotation is identity else normalise(source @ rotation)
            pairs = mutual_neighbours(turned, target, self.settings.neighbours, device=device)
            paired_source, paired_target = source[pairs[:, 0]], target[pairs[:, 1]]
            if number == 1:
                gamma = self._choose(paired_source, paired_target, generator)
                if gamma is None:
                    rotation = identity
                    self.history_.append({"round": 1, "pairs": len(pairs)})
                    break
            assert gamma is not None
            updated = procrustes(paired_source, paired_target, gamma)
            change = float(np.linalg.norm(updated - rotation))
            self.history_.append(
                {
                    "round": number,
                    "pairs": len(pairs),
                    "cosine_before": _mean_cosine(paired_source @ rotation, paired_target),
                    "cosine_after": _mean_cosine(paired_source @ updated, paired_target),
                    "change": change,
                }
            )
            rotation = updated
            if change < self.settings.tolerance:
                break
        self.rotation_ = rotation
        self.gamma_ = gamma
        return self

    def _sample(self, embeddings: Rows, generator: np.random.Generator) -> np.ndarray:
        if len(embeddings) <= self.settings.sample:
            return normalise(embeddings[0 : len(embeddings)])
        rows = generator.choice(len(embeddings), self.settings.sample, replace=False)
        return take(embeddings, np.sort(rows))

    def _choose(
        self, source: np.ndarray, target: np.ndarray, generator: np.random.Generator
    ) -> float | None:
        """Gamma by held-out gain on the given pairs; None to keep the identity."""
        if self.settings.gamma != "auto":
            return float(self.settings.gamma) if len(source) else None
        if len(source) < FEWEST_PAIRS:
            logger.info("alignment: %d pairs are too few, the identity is kept", len(source))
            return None
        order = generator.permutation(len(source))
        halves = (order[: len(order) // 2], order[len(order) // 2 :])
        before = np.einsum("nd,nd->n", source, target)
        gains = {gamma: np.zeros(len(source)) for gamma in GAMMAS}
        for fitted, held in (halves, halves[::-1]):
            cross_product = _cross_product(source[fitted], target[fitted])
            for gamma in GAMMAS:
                turned = source[held] @ _rotation(cross_product, len(fitted), gamma)
                gains[gamma][held] = np.einsum("nd,nd->n", turned, target[held]) - before[held]
        for gamma, gain in gains.items():
            error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
            self.gains_.append(
                {"gamma": gamma, "gain": float(gain.mean()), "standard_error": error}
            )
        best = max(self.gains_, key=lambda entry: entry["gain"])
        if best["gain"] <= 2 * best["standard_error"]:
            logger.info("alignment: no held-out gain, the identity is kept")
            return None
        return float(best["gamma"])

    def transform(self, external: np.ndarray) -> np.ndarray:
        """External rows in the internal domain, unit float32 of the same shape [n, d]."""
        rows = normalise(external)
        return rows if self.gamma_ is None else normalise(rows @ self.rotation_)

    def save(self, path: Path) -> None:
        """Writes the fitted state as `path`.safetensors and `path`.json."""
        state = {
            "settings": self.settings.model_dump(mode="json"),
            "random_state": self.random_state,
            "gamma": self.gamma_,
            "history": self.history_,
            "gains": self.gains_,
        }
        save_state(path, {"rotation": self.rotation_}, state)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> OrthogonalAlignment:
        """Reads what `save` wrote."""
        arrays, state = load_state(path)
        loaded = cls(AlignmentSettings(**state["settings"]), state["random_state"], device)
        loaded.rotation_ = arrays["rotation"]
        loaded.gamma_ = state["gamma"]
        loaded.history_ = state["history"]
        loaded.gains_ = state["gains"]
        return loaded


def _mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.einsum("nd,nd->n", a, b).mean()) if len(a) else 0.0
