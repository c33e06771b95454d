"""Tables of text: what separates their fields, and which `.txt` files are such tables at all."""

from __future__ import annotations

import csv
import re
from typing import IO

from pipeline.dataset.forms.compressed import plain
from pipeline.dataset.forms.names import plain_name
from pipeline.dataset.forms.root import Root

_DELIMITERS = (",", "\t", ";", "|")
# The line that Excel puts before a header, or wants there.
_TOLD = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
# A header is no longer than this.
_HEAD = 1 << 14
# What a table of captions calls its columns, in a file whose name says nothing.
_IMAGES = {"image", "image_name", "image_path", "img", "file_name", "filename", "file", "path"}
_TEXTS = {"caption", "captions", "text", "comment", "sentence", "description", "caption_text"}


def find_delimiter(name: str, file: IO[bytes]) -> str:
    """What separates the fields of a table, going by its header; the file is at its beginning after.

    A file's suffix says it, comma or tab, unless the header has none of that outside quotes; and
    `sep=;` in the line before the header says it whatever else does.
    """
    told, header = _header(file)
    file.seek(0)
    if told is not None:
        return told
    expected = "\t" if plain_name(name).endswith(".tsv") else ","
    counts = {mark: _fields(header, mark) for mark in _DELIMITERS}
    if counts[expected] > 1:
        return expected
    best = max(_DELIMITERS, key=lambda mark: counts[mark])
    return best if counts[best] > 1 else expected


def text_tables(root: Root) -> list[str]:
    """The `.txt` files below a root that have a header of an image's and a text's column."""
    return [n for n in root.names() if plain_name(n).endswith(".txt") and _is_table(root, n)]


def _is_table(root: Root, name: str) -> bool:
    if root.looked_at(name) is None:  # a link that leads nowhere
        return False
    with root.open(name) as file:
        content = plain(file)
        mark = find_delimiter(name, content)
        header = next(csv.reader([_header(content)[1]], delimiter=mark), [])
    found = {field.strip().lower() for field in header}
    return len(header) > 1 and bool(found & _IMAGES) and bool(found & _TEXTS)


def told_delimiter(line: str) -> str | None:
    """What a line says that separates the fields of the lines after it; None where it says no such thing.

    Examples
    --------
    >>> told_delimiter("sep=;"), told_delimiter("id;text")
    (';', None)
    """
    told = _TOLD.fullmatch(line.rstrip("\r\n"))
    return told and told[1]


def _header(file: IO[bytes]) -> tuple[str | None, str]:
    """The separator that a table tells itself, and its header."""
    text = file.read(_HEAD).decode("utf-8-sig", "replace")
    lines = [*filter(None, text.splitlines()), ""]
    told = told_delimiter(lines[0])
    return told, lines[0] if told is None else lines[1]


def _fields(header: str, mark: str) -> int:
    return len(next(csv.reader([header], delimiter=mark), []))
