"""What the captioner is asked and is to answer: photographs, with others' captions as examples.

Three things are taught beside telling what is seen. Words are made up in answer and example alike, so
that a word which stands only there is taken from there. Pictures are made uncertain, and some beyond
recognition, so that examples count the more the stranger a picture is. And some examples have nothing
to do with the picture, so that they are not believed blindly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from examples.recipes.gap.words import telling, tidied, with_made_up_words
from kb.embeddings import normalise

# Of none, one and two examples.
COUNTS = (0.2, 0.55, 0.25)
NEIGHBOURS = 12
# How an example is found: among the nearest by picture and words, as a good retrieval would; by
# the picture alone; else at random.
BY_BOTH, BY_PICTURE = 0.6, 0.3
# Lessons with examples in which words are made up, and the shares of the words.
MADE_UP, SHARES = 0.5, (0.3, 0.6, 1.0)
# Pictures whose channels are shuffled: nothing of what was learned is to be seen in them.
STRANGE = 0.15
# Noise on what the eyes say, at most, as a share of its deviation.
NOISE = 0.8


@dataclass(frozen=True)
class Lesson:
    """A photograph by its row, the examples beside it, and what is to be said of it."""

    row: int
    examples: list[str]
    answer: str


def nearest(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows nearest to each of unit rows [n, d] but itself, int [n, count], best first."""
    found = []
    for start in range(0, len(rows), 512):
        likeness = rows[start : start + 512] @ rows.T
        likeness[np.arange(len(likeness)), np.arange(start, start + len(likeness))] = -np.inf
        best = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(likeness, best, 1).argsort(axis=1)[:, ::-1]
        found.append(np.take_along_axis(best, order, 1))
    return np.concatenate(found)


def word_vectors(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Unit rows of the words that a photograph's captions say, rare ones the more, float32 [n, w]."""
    said = [telling(own) for own in captions]
    counts = Counter(word for words in said for word in words)
    # A word of one photograph is no likeness to any other.
    places = {w: i for i, w in enumerate(sorted(w for w, c in counts.items() if c > 1))}
    rows = np.zeros((len(captions), len(places) + 1), np.float32)
    for row, words in enumerate(said):
        for word in words & places.keys():
            rows[row, places[word]] = np.log(len(captions) / counts[word])
        # One that shares no word with any is like others of the kind.
        rows[row, -1] = 1e-3
    return normalise(rows)


class School:
    """Draws lessons from photographs.

    Parameters
    ----------
    cells : [n, cells, channels]
        What the eyes see of each photograph.
    captions : n lists of str
    """

    def __init__(self, cells: np.ndarray, captions: Sequence[Sequence[str]]) -> None:
        self.cells = cells
        self.captions = [[tidied(text) for text in own] for own in captions]
        pictures = normalise(cells.mean(axis=1, dtype=np.float32))
        words = word_vectors(self.captions)
        count = min(NEIGHBOURS, len(captions) - 1)
        self.by_picture = nearest(pictures, count)
        self.by_both = nearest(np.concatenate([pictures, words], axis=1) / np.sqrt(2), count)
        some = np.asarray(cells[:: max(1, len(cells) // 500)], np.float32)
        self.spread = float(some.std())

    def find_example(self, row: int, rng: np.random.Generator) -> str:
        """A caption of another photograph, as a retrieval would find it."""
        draw = rng.random()
        if draw < BY_BOTH + BY_PICTURE:
            near = (self.by_both if draw < BY_BOTH else self.by_picture)[row]
            # The nearest most often: retrieval shows the best that it has.
            found = int(near[min(int(rng.exponential(len(near) / 4)), len(near) - 1)])
        else:
            found = int(rng.integers(len(self.captions)))
        own = self.captions[found]
        return own[int(rng.integers(len(own)))]

    def lesson(self, row: int, examples: int, rng: np.random.Generator) -> Lesson:
        """One of the photograph's captions to be said, after some examples."""
        own = self.captions[row]
        answer = own[int(rng.integers(len(own)))]
        shown = [self.find_example(row, rng) for _ in range(examples)]
        if shown and rng.random() < MADE_UP:
            share = float(rng.choice(SHARES))
            shown, answer = with_made_up_words(shown, answer, share, rng)
        return Lesson(row, shown, answer)

    def seen(self, rows: Sequence[int], rng: np.random.Generator, examples: int) -> np.ndarray:
        """What is seen of photographs, some mirrored, uncertain or strange, float32 [n, cells, channels].

        Without an example none is strange: there would be nothing to go by.
        """
        seen = np.asarray(self.cells[np.asarray(rows)], np.float32)
        count, cells, channels = seen.shape
        side = round(cells**0.5)
        mirrored = rng.random(count) < 0.5
        grid = seen.reshape(count, side, side, channels)
        grid[mirrored] = grid[mirrored][:, :, ::-1]
        seen = grid.reshape(count, cells, channels)
        noise = rng.standard_normal(seen.shape, np.float32)
        seen += NOISE * self.spread * rng.random((count, 1, 1), np.float32) * noise
        if examples:
            for place in np.flatnonzero(rng.random(count) < STRANGE):
                seen[place] = seen[place][:, rng.permutation(channels)]
        return seen
