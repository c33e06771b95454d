"""How much a pair is like the pairs of a side: the figure that the filter judges it by."""

from __future__ import annotations

import numpy as np

from kb.index.neighbours import top_k

# The part of the likeness to its own side that is taken off, as in CSLS: there the cosine counts
# twice and each side's density once.
OWN_SIDE = 0.5
# Above this a row of a sample has met itself.
ITSELF = 1 - 1e-5


def likeness(
    rows: np.ndarray, side: np.ndarray, k: int, device: str = "cpu", *, own: bool = False
) -> np.ndarray:
    """Mean cosine of each row to its k nearest of a side, float32 [n].

    Parameters
    ----------
    rows, side : unit rows, shapes [n, d] and [m, d]
    k : int
        Clamped to the size of the side.
    own : bool
        The side may hold the rows themselves: a row's likeness to itself is left out.
    """
    if not own:
        return top_k(rows, side, k, device=device)[0].mean(axis=1)
    similarities, _ = top_k(rows, side, k + 1, device=device)
    # Only rows of the sample meet themselves; the others drop their farthest.
    itself = similarities[:, :1] > ITSELF
    nearest = np.where(itself, similarities[:, 1:], similarities[:, :-1])
    return nearest.mean(axis=1) if nearest.shape[1] else similarities[:, 0]


def contrast(
    rows: np.ndarray, other: np.ndarray, own: np.ndarray, k: int, device: str = "cpu"
) -> np.ndarray:
    """Likeness to the other side less half of that to the own side, float32 [n].

    A row in a dense region of its own side has to be nearer to the other side to belong there:
    the local scaling of CSLS (Conneau et al. 2018, equation 7), halved, without the other
    side's part. Both sides should be samples of one size, for likeness grows with density.

    Parameters
    ----------
    rows : unit rows [n, d]
    other, own : unit rows [m, d] and [l, d]
        The side that is judged by, and the rows' own, which may hold them.
    """
    figures = likeness(rows, other, k, device)
    return figures - OWN_SIDE * likeness(rows, own, k, device, own=True)
