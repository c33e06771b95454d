"""Sentence BLEU of a generated caption against its references, through sacrebleu.

The consistency term of the caption score (see :mod:`selection.scoring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

from selection.words import spaced

Tokenizer = Literal["auto", "13a", "intl", "char", "zh", "none"]


@lru_cache(maxsize=16)
def _metric(tokenizer: str, lowercase: bool) -> Any:
    from sacrebleu.metrics import BLEU

    if tokenizer not in get_args(Tokenizer):
        known = ", ".join(get_args(Tokenizer))
        raise ValueError(f"tokenizer must be one of {known}; got {tokenizer!r}")
    # With effective_order a caption of three words is not punished for having no 4-grams.
    return BLEU(tokenize=tokenizer, lowercase=lowercase, effective_order=True)


def sentence_bleu(
    candidate: str,
    references: Sequence[str],
    *,
    tokenizer: Tokenizer = "auto",
    lowercase: bool = False,
) -> float:
    """Sentence BLEU of one candidate against one or more references.

    BLEU-4 with sacrebleu's exponential smoothing and effective order (Papineni et al. 2002;
    Post 2018).

    Parameters
    ----------
    candidate : str
        The generated caption.
    references : sequence of str
        At least one reference caption; n-grams may match any of them.
    tokenizer : {"auto", "13a", "intl", "char", "zh", "none"}
        sacrebleu's tokenizer; "auto" is "13a" with the scripts that part no words by spaces taken
        letter by letter, which changes nothing in the others.
    lowercase : bool
        Compare without case.

    Returns
    -------
    float
        BLEU in 0..1.

    Raises
    ------
    ValueError
        If there is no reference, or the tokenizer is unknown.

    Examples
    --------
    >>> sentence_bleu("a red hat", ["a red hat"])
    1.0
    >>> sentence_bleu("two dogs", ["a red hat"])
    0.0
    """
    if not references:
        raise ValueError("references must hold at least one caption; got none")
    if not candidate.strip():
        return 0.0
    texts = [candidate, *references]
    if tokenizer == "auto":
        tokenizer, texts = "13a", [spaced(text) for text in texts]
    score = _metric(tokenizer, lowercase).sentence_score(texts[0], texts[1:]).score
    # Rounding in sacrebleu's geometric mean can leave 100.00000000000004.
    return min(max(score / 100.0, 0.0), 1.0)
