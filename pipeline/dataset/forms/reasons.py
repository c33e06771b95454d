"""Why a half of a row is missing: in words for a person, with what it is about where that helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

NO_IMAGE = "no image in the row"
NO_IMAGES = "no column of images"
EMPTY_IMAGE = "empty image"
EMPTY_FILE = "empty file"
ONLY_URL = "only a URL"
OUTSIDE = "outside the data's folder"
NO_FILE = "no such file"
NOT_ALLOWED = "not allowed to read"
NOT_A_FILE = "not a file"
TOO_LARGE = "larger than 256 MB"
LOCKED = "packed with a password"
NO_PATH = "neither an image nor a path"
PACKED = "packed in a way that is not read"
DAMAGED = "damaged in its archive"

# Of rows that can't be read.
NOT_JSON = "a row that is not JSON"
NOT_UTF8 = "a row that is not UTF-8"
TWICE = "a row with two values of one name"
FIELDS = "a row with another number of fields"
NO_OBJECT = "a row that is no object with columns"
NOT_KEPT = "a row with a value that Parquet can't hold"
TOO_LONG = "a text of more than a megabyte"

NO_TEXT = "no text in the row"
NO_TEXTS = "no column of texts"
EMPTY_TEXT = "empty text"
NO_STRING = "neither a text nor a list of texts"
WHITE_SPACE = "only white space"
INVISIBLE = "only invisible characters"

# Characters that show nothing, besides whitespace: NUL, zero-width ones, the byte order mark.
_UNSEEN = "\0\u200b\u200c\u200d\u2060\ufeff"

# Reasons of one kind that are about as many things as this are told one by one.
FEW = 2
_LONGEST = 200
_LONGEST_ADDRESS = 4000
_SCHEME = 16
_OF_PATHS = (
    *(ONLY_URL, OUTSIDE, NO_FILE, NOT_ALLOWED, NOT_A_FILE, EMPTY_FILE, TOO_LARGE),
    *(LOCKED, PACKED, DAMAGED, NOT_JSON, NOT_UTF8, NOT_KEPT, TWICE, NO_OBJECT, TOO_LONG, FIELDS),
)
_ABOUT = re.compile(rf"({'|'.join(map(re.escape, _OF_PATHS))}) '[^']*'")


def is_visible(text: str) -> bool:
    """Whether a text is one: whether any of its characters shows."""
    return any(not (char in _UNSEEN or char.isspace()) for char in text)


def about(kind: str, what: str) -> str:
    """A reason that names what it is about: "no such file 'a.png'"."""
    # An address may be all that is left of an image.
    address = "://" in what[:_SCHEME]
    longest = _LONGEST_ADDRESS if address else _LONGEST
    shown = what if len(what) <= longest else what[:longest] + "…"
    return f"{kind} '{shown.replace(chr(39), '%27' if address else '’')}'"


def kind_of(reason: str) -> str:
    """A reason, or several in a sentence, without what they are about.

    Examples
    --------
    >>> kind_of(about(NO_FILE, "a.png"))
    'no such file'
    """
    return _ABOUT.sub(r"\1", reason)


def by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts of reasons, the most frequent first: those of one kind as one, unless they are few."""
    kinds = Counter(map(kind_of, counts))
    found: Counter[str] = Counter()
    for reason, count in counts.items():
        kind = kind_of(reason)
        found[reason if kinds[kind] <= FEW else kind] += count
    return dict(found.most_common())
