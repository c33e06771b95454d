"""Learning how to fuse, from complete pairs that are left out, and whether that gains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kb.embeddings import MODALITIES, Modality
from kb.groups import halves
from kb.retrieval.learned import FUSIONS, Found, Fusion
from kb.retrieval.leave_one_out import LeaveOneOut
from kb.retrieval.settings import RetrievalSettings
from kb.storage import load_state, save_state

# In the folder of a knowledge base.
FUSION = Path("mapping", "fusion")
# Fewer queries teach nothing.
FEWEST = 32


def learn(
    trials: LeaveOneOut,
    pseudo: Mapping[Modality, np.ndarray | None],
    settings: RetrievalSettings,
    groups: np.ndarray,
    random_state: int = 0,
) -> tuple[dict[Modality, Fusion], dict[str, Any]]:
    """The fusion that the settings name, per observed modality where it gains over the score.

    One half of the pairs teaches it for the other; it is taken if what it finds there is more like
    the truth, by more than the standard error, and is then fitted to all.

    Parameters
    ----------
    trials : LeaveOneOut
    pseudo : per observed modality [n, d of the other], or None
        Pseudo-embeddings by mappings that did not see the row; None where the mapping says nothing.
    settings : RetrievalSettings
        As they were chosen: only `fusion` knows of two similarities to fuse.
    groups : int64 [n]
        Pairs that share a half have equal numbers.

    Returns
    -------
    fusions : dict
        Without those that do not gain.
    evidence : dict
        Per modality `gain`, its `standard_error`, and whether it was `taken`.
    """
    fusions: dict[Modality, Fusion] = {}
    evidence: dict[str, Any] = {}
    alpha, k = float(settings.alpha), int(settings.k)
    if settings.fusion == "score" or settings.mode != "fusion":
        return fusions, evidence
    make = FUSIONS[settings.fusion]
    for modality in MODALITIES:
        guess = pseudo[modality]
        if guess is None or len(groups) < FEWEST or groups.max() == 0:
            continue
        found, truth = trials.candidates(modality, k, guess)
        score = np.full(found.rows.shape, -np.inf, dtype=np.float32)
        parts = halves(groups, np.random.default_rng(random_state))
        for seen, asked in (parts, parts[::-1]):
            score[asked] = make().fit(found.of(seen), truth[seen], alpha).score(found.of(asked))
        plain = alpha * found.intra + (1 - alpha) * found.cross
        gain = _of_best(score, truth, found) - _of_best(plain, truth, found)
        gain = gain[np.isfinite(gain)]
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
        taken = bool(len(gain)) and float(gain.mean()) > error
        mean = float(gain.mean()) if len(gain) else 0.0
        evidence[modality] = {"gain": mean, "standard_error": error, "taken": taken}
        if taken:
            fusions[modality] = make().fit(found, truth, alpha)
    return fusions, evidence


def _of_best(score: np.ndarray, truth: np.ndarray, found: Found) -> np.ndarray:
    """How like the truth the best candidate is, [n]; NaN where there is none."""
    scores = np.where(found.rows < 0, -np.inf, score)
    best = scores.argmax(axis=1)[:, None]
    like = np.take_along_axis(truth, best, axis=1)[:, 0]
    return np.where((found.rows < 0).all(axis=1), np.nan, like)


def save_fusions(folder: Path, name: str, fusions: Mapping[Modality, Fusion]) -> None:
    """Writes what was learned, a pair of files a modality."""
    for modality, fusion in fusions.items():
        folder.mkdir(exist_ok=True)
        save_state(folder / modality, fusion.state(), {"fusion": name})


def load_fusions(folder: Path) -> dict[Modality, Fusion]:
    """What `save_fusions` wrote; without those that were not taken."""
    fusions: dict[Modality, Fusion] = {}
    for modality in MODALITIES:
        if (folder / f"{modality}.json").exists():
            arrays, state = load_state(folder / modality)
            fusions[modality] = FUSIONS[state["fusion"]]().restore(arrays)
    return fusions
