"""The words of a caption, in whatever script: what captions are compared by.

Combining marks belong to their letter: the vowels of Devanagari, Thai or Arabic are marks, and without
them different captions would read the same. Scripts that part no words by spaces are taken letter by
letter.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Letters of Thai and Lao, Myanmar, Khmer, Japanese and Chinese, which part no words by spaces.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0edf\u1000-\u109f\u1780-\u17d3\u3005-\u3007"
    "\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
# Zero width non-joiner and joiner, which stand within words of Persian and Indic scripts.
_JOINERS = "\u200c\u200d"
# Variation selectors choose how a character is drawn, and say nothing.
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A word, and a letter of a script without spaces, each with its combining marks."""
    # `\w` holds no marks. All that there are lie below U+20000, but for variants of ideographs.
    held = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] == "M")
    marks = re.escape(held)
    letter = rf"(?:[^\W_]|[{marks}{_JOINERS}])"
    word = re.compile(rf"[^\W_]{letter}*(?:['’]{letter}+)*")
    return word, re.compile(rf"(?=\w)[{_UNSPACED}][{marks}]*")


def spaced(text: str) -> str:
    """The text with spaces around each letter of the scripts that part no words by spaces.

    Composed (NFC), for a letter and its marks are the same however they are written.

    Examples
    --------
    >>> spaced("狗在跑, fast").split()
    ['狗', '在', '跑', ',', 'fast']
    """
    return _patterns()[1].sub(r" \g<0> ", unicodedata.normalize("NFC", text))


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and with their combining marks.

    Examples
    --------
    >>> words("A dog’s red hat, twice.")
    ['a', "dog's", 'red', 'hat', 'twice']
    >>> words("狗在跑, fast")
    ['狗', '在', '跑', 'fast']
    """
    return _patterns()[0].findall(spaced(_folded(text)).replace("’", "'"))


def said(text: str) -> tuple[str, ...]:
    """All that a text says: its words, and its symbols, each as one.

    Two captions that differ in an emoji, a currency or a sign of arithmetic are different.

    Examples
    --------
    >>> said("A 🐶, for $5!") == said("a 🐶 for $5")
    True
    >>> said("a 🐶") == said("a 🐱")
    False
    """
    apart = "".join(
        f" {character} " if unicodedata.category(character)[0] == "S" else character
        for character in _folded(text)
    )
    word = _patterns()[0]
    found: list[str] = []
    for part in spaced(apart).replace("’", "'").split():
        found += word.findall(part) or [c for c in part if unicodedata.category(c)[0] == "S"]
    return tuple(found)


def _folded(text: str) -> str:
    """Compatible forms made one, case aside; composed again, since folding may take apart."""
    folded = unicodedata.normalize("NFKC", _SELECTORS.sub("", text)).casefold()
    return unicodedata.normalize("NFKC", folded)
