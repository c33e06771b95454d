"""Words of captions."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"[A-Za-z]+")
_SPACE_BEFORE = re.compile(r"\s+([.,;:!?])")
# Words that say nothing of what is seen.
_COMMON = """
    a about above across after against all along also an and another are around as at away back be
    because been before behind being below beside between both but by can down each few for from front
    has have he her here him his in inside into is it its large little lot many more most near next no
    not of off on one onto other out outside over several she small so some something that the their
    them there these they this those three through to together toward towards two under up very was
    well were what where which while who with you
"""
COMMON = frozenset(_COMMON.split())


def tidied(caption: str) -> str:
    """A caption without the space before its punctuation.

    Examples
    --------
    >>> tidied(" A dog , wet , runs . ")
    'A dog, wet, runs.'
    """
    return _SPACE_BEFORE.sub(r"\1", " ".join(caption.split()))


def stem(word: str) -> str:
    """A word in lower case without the s of a plural.

    Examples
    --------
    >>> stem("Dogs"), stem("grass"), stem("is")
    ('dog', 'grass', 'is')
    """
    word = word.lower()
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def telling(texts: Iterable[str]) -> set[str]:
    """Stems of the words that say what is seen."""
    found = {stem(word) for text in texts for word in _WORD.findall(text) if len(word) > 2}
    return found - COMMON
