"""What the captioner is asked and is to answer: photographs, with others' captions as examples.

Two things are taught beside telling what is seen. Pictures are made uncertain, and some beyond
recognition, so that examples count the more the stranger a picture is. And some examples have nothing
to do with the picture, so that they are not believed blindly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from examples.recipes.gap.words import telling, tidied
from generators.blip2_settings import Blip2Settings
from kb.embeddings import normalise

# Of none, one and two examples.
COUNTS = (0.2, 0.55, 0.25)
NEIGHBOURS = 12
# How an example is found: among the nearest by picture and words, as a good retrieval would; by
# the picture alone; else at random.
BY_BOTH, BY_PICTURE = 0.6, 0.3
# Lessons with examples whose picture's channels are shuffled: nothing of what was learned is to be seen
# in it. In so many of them an example is of that picture, and alone tells what it shows.
STRANGE, OF_ITS_OWN = 0.4, 0.6
# Noise on what the eyes say, at most, as a share of its deviation.
NOISE = 0.8


@dataclass(frozen=True)
class Lesson:
    """A photograph by its row, the examples beside it, and what is to be said of it.

    Where it is `strange`, nothing can be recognised in it.
    """

    row: int
    examples: list[str]
    answer: str
    strange: bool = False


def nearest(rows: np.ndarray, count: int, among: int | None = None) -> np.ndarray:
    """The rows nearest to each of unit rows [n, d] but itself, int [n, count], best first.

    They are the first `among` ones', where that is said.
    """
    found = []
    for start in range(0, len(rows), 512):
        likeness = rows[start : start + 512] @ rows[:among].T
        own = np.arange(start, min(start + len(likeness), likeness.shape[1]))
        likeness[own - start, own] = -np.inf
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
    taught : int, optional
        Photographs that serve as examples are the first so many; all by default.
    """

    def __init__(
        self, cells: np.ndarray, captions: Sequence[Sequence[str]], taught: int | None = None
    ) -> None:
        self.taught = len(captions) if taught is None else taught
        self.captions = [[tidied(text) for text in own] for own in captions]
        pictures = normalise(cells.mean(axis=1, dtype=np.float32))
        words = word_vectors(self.captions)
        count = min(NEIGHBOURS, self.taught - 1)
        both = np.concatenate([pictures, words], axis=1) / np.sqrt(2)
        self.by_picture = nearest(pictures, count, self.taught)
        self.by_both = nearest(both, count, self.taught)
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
            found = int((row + rng.integers(1, self.taught)) % self.taught)
        own = self.captions[found]
        return own[int(rng.integers(len(own)))]

    def lesson(self, row: int, examples: int, rng: np.random.Generator) -> Lesson:
        """One of the photograph's captions to be said, after some examples."""
        own = self.captions[row]
        said = int(rng.integers(len(own)))
        answer, others = own[said], own[:said] + own[said + 1 :]
        shown = [self.find_example(row, rng) for _ in range(examples)]
        strange = bool(shown) and rng.random() < STRANGE
        if strange and others and rng.random() < OF_ITS_OWN:
            shown[int(rng.integers(examples))] = others[int(rng.integers(len(others)))]
        return Lesson(row, shown, answer, strange)

    def changed(self, cells: torch.Tensor, strange: torch.Tensor) -> torch.Tensor:
        """What is seen of photographs, some mirrored, uncertain or strange, float32, as `cells`.

        What is drawn is torch's.

        Parameters
        ----------
        cells : [n, cells, channels]
            What the eyes saw; it stays as it is.
        strange : bool [n]
            In which nothing is to be recognised.
        """
        count, places, channels = cells.shape
        side = round(places**0.5)
        grid = cells.float().reshape(count, side, side, channels)

        def draw(*shape: int) -> torch.Tensor:
            return torch.rand(shape, device=cells.device)

        seen = torch.where(draw(count, 1, 1, 1) < 0.5, grid.flip(2), grid).flatten(1, 2)
        noise = torch.randn(seen.shape, device=cells.device)
        seen = seen + NOISE * self.spread * draw(count, 1, 1) * noise
        order = draw(count, 1, channels).argsort(dim=-1).expand(seen.shape)
        return torch.where(strange[:, None, None], seen.gather(2, order), seen)


def sequences(
    tokenizer: Any, lessons: Sequence[Lesson], pad: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int [n, length], and what each is: 0 nothing, 1 of the prompt, 2 of the answer."""

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return found

    prompts = [ids(Blip2Settings().render(one.examples)) for one in lessons]
    answers = [[*ids(f" {one.answer}"), end] for one in lessons]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens = np.full((len(lessons), length), pad)
    part = np.zeros((len(lessons), length), np.int64)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        stop = len(prompt) + len(answer)
        tokens[row, :stop] = prompt + answer
        part[row, : len(prompt)], part[row, len(prompt) : stop] = 1, 2
    return tokens, part
