"""Ranks of test pairs over draws, recall, and what two variants differ by, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.check.intervals import Interval, paired, share_of

RECALL_AT = (1, 5, 10)
# What variants are compared by: the mean over both directions and these k of recall. The second is
# the mean recall of the field of remote sensing.
MEASURES = {"mean R@1": (1,), "mean recall": RECALL_AT}
# Draws from which on an interval over them says anything.
FEWEST_DRAWS = 3


def ranks(similarity: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How many keys that are not true of a query are more similar to it than the best that is.

    Parameters
    ----------
    similarity : [n, m]
        Of each query to each key.
    true : bool [n, m]
        Which keys are true of which query; at least one of each.

    Returns
    -------
    int64 [n]
        0 where a true key comes first; ties are given to its favour only against later keys.

    Raises
    ------
    FloatingPointError
        A similarity is not finite: it would rank before everything.
    """
    if not np.isfinite(similarity).all():
        raise FloatingPointError("similarities must be finite")
    own = np.where(true, similarity, -np.inf)
    place = own.argmax(axis=1)[:, None]
    best = own.max(axis=1)[:, None]
    earlier = np.arange(similarity.shape[1]) < place
    before = (similarity > best) | ((similarity == best) & earlier)
    return (before & ~true).sum(axis=1)


def recall(ranks: np.ndarray, k: int) -> float:
    """Share of ranks below k."""
    return float((np.asarray(ranks) < k).mean())


@dataclass(frozen=True)
class Ranks:
    """Ranks of what is true of each test picture and of each of their captions.

    Attributes
    ----------
    image_to_text : int64 [seeds, pictures]
        Of the best of a picture's captions.
    text_to_image : int64 [seeds, captions]
        Of the best of a caption's pictures.
    pictures : int64 [captions] or None
        Which picture each caption is of, ascending; None: each has one.
    """

    image_to_text: np.ndarray
    text_to_image: np.ndarray
    pictures: np.ndarray | None = None

    def hits(self, at: Sequence[int] = (1,)) -> np.ndarray:
        """What each picture adds to the recall at some k, in the mean of these, [seeds, pictures].

        The mean over pictures is that of the recalls of both directions, of which one counts
        pictures and the other captions.
        """
        shares = []
        for k in at:
            of_captions = (self.text_to_image < k).astype(float)
            if self.pictures is not None:
                counts = np.bincount(self.pictures, minlength=self.image_to_text.shape[1])
                starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
                of_captions = np.add.reduceat(of_captions, starts, axis=1) / counts.mean()
            shares.append(((self.image_to_text < k) + of_captions) / 2)
        return np.mean(shares, axis=0)


class Ranked:
    """Ranks of the test pairs of every draw, by one variant's models."""

    def __init__(self) -> None:
        self._draws: dict[int, tuple[Ranks, tuple[str, ...]]] = {}

    def add(self, ranks: Ranks, names: Sequence[str], draw: int = 0) -> None:
        """The ranks of one draw, with the names of its pictures: equal ones are not independent."""
        if draw in self._draws:
            raise ValueError(f"draw {draw} has been ranked already")
        self._draws[draw] = ranks, tuple(names)

    @property
    def ranks(self) -> Ranks:
        """The test pairs of all draws as if they were one test set."""
        held = [ranks for ranks, _ in self._draws.values()]
        pictures, first = [], 0
        for one in held:
            captions = one.text_to_image.shape[1]
            pictures.append(first + (np.arange(captions) if one.pictures is None else one.pictures))
            first += one.image_to_text.shape[1]
        return Ranks(
            np.concatenate([one.image_to_text for one in held], axis=1),
            np.concatenate([one.text_to_image for one in held], axis=1),
            np.concatenate(pictures),
        )

    @property
    def names(self) -> list[str]:
        """Names of the pictures; one that several draws test on stands several times."""
        return [name for _, names in self._draws.values() for name in names]

    def hits(self, at: Sequence[int] = (1,)) -> np.ndarray:
        """What each picture of all draws adds to recall, [seeds, pictures]; see `Ranks.hits`."""
        return self.ranks.hits(at)

    def by_draw(self, at: Sequence[int] = (1,)) -> dict[int, float]:
        """Recall of each draw by itself, in the mean over seeds, both directions and these k."""
        return {draw: float(ranks.hits(at).mean()) for draw, (ranks, _) in self._draws.items()}


@dataclass(frozen=True)
class Spread:
    """A figure with 95 % intervals by what it may vary with.

    Attributes
    ----------
    over_seeds : Interval
        What another seed of the training would change.
    over_rows : Interval
        What other test pairs would change, for the same trained models; a pair that several draws
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


def gain(better: Ranked, worse: Ranked, at: Sequence[int] = (1,)) -> Spread:
    """How much more of the test pairs one variant gets right among the first k, in the mean."""
    return _spread(paired, at, better, worse)


def way(own: Ranked, low: Ranked, high: Ranked, at: Sequence[int] = (1,)) -> Spread:
    """Share of the way from one variant to another, in the same measure.

    Raises
    ------
    ValueError
        There is no way: the upper end is not above the lower one.
    """
    return _spread(share_of, at, own, low, high)


def _spread(figure: Callable[..., Interval], at: Sequence[int], *variants: Ranked) -> Spread:
    hits = [one.hits(at) for one in variants]
    draws = [list(one.by_draw(at).values()) for one in variants]
    return Spread(
        figure(*(one.mean(axis=1) for one in hits)),
        figure(*(one.mean(axis=0) for one in hits), clusters=variants[0].names),
        figure(*draws) if len(draws[0]) >= FEWEST_DRAWS else None,
    )
