"""Ranks of test pairs over draws, recall, and what two variants differ by, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.results.intervals import Interval, paired, share_of

RECALL_AT = (1, 5, 10)
# Draws from which on an interval over them says anything.
FEWEST_DRAWS = 3


def ranks(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """How many keys are more similar to each query than its own.

    Parameters
    ----------
    queries, keys : unit rows [n, d]
        Row i of one belongs to row i of the other.

    Returns
    -------
    int64 [n]
        0 where the own key comes first; ties are given to the own key's favour only against keys
        of a later row.
    """
    similarity = queries @ keys.T
    own = np.diag(similarity)[:, None]
    earlier = np.tri(len(keys), k=-1, dtype=bool)
    return ((similarity > own) | ((similarity == own) & earlier)).sum(axis=1)


def recall(ranks: np.ndarray, k: int) -> float:
    """Share of ranks below k."""
    return float((np.asarray(ranks) < k).mean())


@dataclass(frozen=True)
class Ranks:
    """Ranks of the true half of each test pair, [seeds, test pairs], both ways."""

    image_to_text: np.ndarray
    text_to_image: np.ndarray


class Ranked:
    """Ranks of the test pairs of every draw, by one variant's fine-tuned models."""

    def __init__(self) -> None:
        self._draws: dict[int, tuple[Ranks, tuple[str, ...]]] = {}

    def add(self, ranks: Ranks, pairs: Sequence[str], draw: int = 0) -> None:
        """The ranks of one draw, with the ids of its test pairs in their order."""
        if draw in self._draws:
            raise ValueError(f"draw {draw} has been ranked already")
        self._draws[draw] = ranks, tuple(pairs)

    @property
    def ranks(self) -> Ranks:
        """The test pairs of all draws as if they were one test set."""
        held = [ranks for ranks, _ in self._draws.values()]
        return Ranks(
            *(
                np.concatenate([getattr(one, name) for one in held], axis=1)
                for name in ("image_to_text", "text_to_image")
            )
        )

    @property
    def pairs(self) -> list[str]:
        """Their ids; one that several draws test on stands several times."""
        return [row_id for _, pairs in self._draws.values() for row_id in pairs]

    def hits(self, k: int = 1) -> np.ndarray:
        """Share of both directions that is among the first k, [seeds, test pairs]."""
        return _hits(self.ranks, k)

    def by_draw(self, k: int = 1) -> dict[int, float]:
        """Recall of each draw by itself, in the mean over seeds and both directions."""
        return {draw: float(_hits(ranks, k).mean()) for draw, (ranks, _) in self._draws.items()}


@dataclass(frozen=True)
class Spread:
    """A figure with 95 % intervals by what it may vary with.

    Attributes
    ----------
    over_seeds : Interval
        What another seed of the fine-tuning would change.
    over_rows : Interval
        What other test pairs would change, for the same fine-tunings; a pair that several draws
        test on counts as one.
    over_draws : Interval or None
        Of the draws' own figures, which differ in seeds, test pairs and what was hidden; None of
        fewer than three.
    """

    over_seeds: Interval
    over_rows: Interval
    over_draws: Interval | None

    def exceeds(self, times: float = 1.0) -> bool:
        """Whether it is this many times its interval over seeds and that over test pairs."""
        return all(one.mean > times * one.half for one in (self.over_seeds, self.over_rows))


def gain(better: Ranked, worse: Ranked) -> Spread:
    """How much more of the test pairs one variant gets right, R@1 in the mean of directions."""
    return _spread(paired, better, worse)


def way(own: Ranked, low: Ranked, high: Ranked) -> Spread:
    """Share of the way from one variant to another, in the same measure.

    Raises
    ------
    ValueError
        There is no way: the upper end is not above the lower one.
    """
    return _spread(share_of, own, low, high)


def _spread(figure: Callable[..., Interval], *variants: Ranked) -> Spread:
    hits = [one.hits() for one in variants]
    draws = [list(one.by_draw().values()) for one in variants]
    return Spread(
        figure(*(one.mean(axis=1) for one in hits)),
        figure(*(one.mean(axis=0) for one in hits), clusters=variants[0].pairs),
        figure(*draws) if len(draws[0]) >= FEWEST_DRAWS else None,
    )


def _hits(ranks: Ranks, k: int) -> np.ndarray:
    return ((ranks.image_to_text < k).astype(float) + (ranks.text_to_image < k)) / 2
