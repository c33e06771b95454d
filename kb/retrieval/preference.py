"""How much nearer an external pair must be than one of the dataset's own.

The other domain's captions name things as that domain does, and its pictures are drawn as that domain
draws: what alignment takes out of the embeddings stays in what a generator is shown. So an external
pair loses a constant in both stages of retrieval, one for each missing half (`kb.retrieval.penalty`
measures it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kb.embeddings import Modality

# Letters in a row that texts are compared by, in whatever script.
LETTERS = 3


@dataclass(frozen=True)
class Preference:
    """What external pairs lose, by the half that a query has.

    Attributes
    ----------
    external : bool [n]
        Of the rows that can be retrieved.
    penalty : mapping of modality to float
        By the observed modality: an image's is what pairs lose where texts are missing.
    """

    external: np.ndarray
    penalty: Mapping[Modality, float]

    def loss(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        """What each of the rows loses, float32 of their shape; 0 where there is no row."""
        lost: np.ndarray = np.where(rows < 0, False, self.external[rows.clip(0)])
        return lost * np.float32(self.penalty[modality])


def likeness(captions: Sequence[str], others: Sequence[str]) -> float:
    """Dice coefficient of what two rows' captions are made of: three letters in a row.

    2 |A ∩ B| / (|A| + |B|) over the sets of runs of three characters (Dice 1945), without case.
    """
    a, b = _runs(captions), _runs(others)
    return 2 * len(a & b) / max(1, len(a) + len(b))


def _runs(captions: Sequence[str]) -> set[str]:
    texts = [f" {' '.join(caption.casefold().split())} " for caption in captions]
    return {text[at : at + LETTERS] for text in texts for at in range(len(text) - LETTERS + 1)}
