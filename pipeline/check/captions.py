"""Generated texts against the hidden ones: CIDEr-D, BLEU-4 and chrF of a whole set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from selection.words import spaced, words

ORDERS = (1, 2, 3, 4)
# Width of the length penalty, in words (Vedantam et al. 2015, section 6).
SIGMA = 6.0

Grams = Counter[tuple[str, ...]]


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each candidate against its references (Vedantam, Zitnick and Parikh 2015).

    For n-grams of order 1 to 4, with g the vector of counts weighted by the logarithm of the
    inverse share of rows whose references hold the n-gram (equation 1; counts are not divided by
    their sum, as in the authors' code), the score of order n is

        10 / m Σ_j exp(−(l(c) − l(s_j))² / 2σ²) min(g(c), g(s_j)) · g(s_j) / (‖g(c)‖ ‖g(s_j)‖)

    with σ = 6 words (equation 5), and CIDEr-D the mean over the four orders. Words are compared
    in lower case without punctuation and without stemming. A caption of fewer than four words has
    no n-grams of the higher orders, and scores nothing on them: short captions can't reach 10.

    Parameters
    ----------
    candidates : sequence of n str
    references : sequence of n sequences of str
        At least one each. They are also the corpus of the document frequencies, so that scores
        of different sets do not compare.

    Returns
    -------
    float64 [n], from 0 to 10.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError(
            f"references must be {len(candidates)}, each of at least one text;"
            f" got {len(references)}"
        )
    held = [[_grams(words(text)) for text in row] for row in references]
    frequency: Grams = Counter()
    for row in held:
        frequency.update({gram for grams in row for gram in grams})
    rows = math.log(len(references)) if references else 0.0
    scores = np.zeros(len(candidates))
    for number, (text, row) in enumerate(zip(candidates, held, strict=True)):
        own = _Vectors(_grams(words(text)), frequency, rows)
        parts = [own.similarity(_Vectors(grams, frequency, rows)) for grams in row]
        scores[number] = 10 * float(np.mean(parts))
    return scores


def _grams(tokens: Sequence[str]) -> Grams:
    return Counter(
        tuple(tokens[start : start + order])
        for order in ORDERS
        for start in range(len(tokens) - order + 1)
    )


class _Vectors:
    """The weighted n-gram vectors of a text, one an order, and its length in words."""

    def __init__(self, grams: Grams, frequency: Grams, rows: float) -> None:
        self.length = sum(count for gram, count in grams.items() if len(gram) == 1)
        self.weights: dict[int, dict[tuple[str, ...], float]] = {order: {} for order in ORDERS}
        for gram, count in grams.items():
            # What no reference holds counts as if one did.
            weight = count * (rows - math.log(max(1, frequency[gram])))
            self.weights[len(gram)][gram] = weight
        self.norms = {
            order: math.sqrt(sum(w * w for w in vector.values()))
            for order, vector in self.weights.items()
        }

    def similarity(self, reference: _Vectors) -> float:
        penalty = math.exp(-((self.length - reference.length) ** 2) / (2 * SIGMA**2))
        total = 0.0
        for order in ORDERS:
            norms = self.norms[order] * reference.norms[order]
            if norms:
                theirs = reference.weights[order]
                total += (
                    sum(
                        min(weight, theirs[gram]) * theirs[gram]
                        for gram, weight in self.weights[order].items()
                        if gram in theirs
                    )
                    / norms
                )
        return penalty * total / len(ORDERS)


def bleu_and_chrf(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, float]:
    """Corpus BLEU-4 (Papineni et al. 2002) and chrF (Popović 2015) by sacrebleu, both in 0..1.

    In lower case; BLEU tokenises as 13a, with each letter of a script without spaces by itself.
    """
    from sacrebleu.metrics import BLEU, CHRF

    most = max(map(len, references))
    streams = [
        [spaced(row[place]) if place < len(row) else None for row in references]
        for place in range(most)
    ]
    texts = [spaced(text) for text in candidates]
    bleu = BLEU(lowercase=True).corpus_score(texts, streams).score
    chrf = CHRF(lowercase=True).corpus_score(texts, streams).score
    return bleu / 100, chrf / 100
