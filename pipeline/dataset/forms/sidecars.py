"""Texts beside pictures, each in a file of the picture's name: `001.txt` or `001.jpg.txt` for `001.jpg`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from pipeline.dataset.forms.reasons import NO_FILE, NOT_UTF8, TOO_LONG, about
from pipeline.dataset.forms.root import Root

Answer = tuple[str | None, str | None]

SUFFIXES = (".txt", ".caption")
# Folders that may hold the texts of a folder beside them.
_FOLDERS = frozenset({"caption", "captions", "text", "texts", "txt"})
# Files that are looked at to know whether they hold texts.
_LOOKED_AT = 32
# Files of more bytes hold no caption.
_MOST_BYTES = 1 << 20


class Sidecars:
    """The texts beside the pictures of a folder.

    They lie in the picture's own folder, or in one beside it that is called `captions` or the like.
    Files of figures, as detectors are trained on, are none.

    Attributes
    ----------
    names : dict of str to str
        The text's file by the picture's.
    alone : dict of str to list
        By folder, texts whose picture is not there: files with names like the others', in digits.
    """

    def __init__(self, root: Root, pictures: list[str]) -> None:
        self.root = root
        texts = {
            posixpath.splitext(name): name
            for name in sorted(root.names(), reverse=True)
            if name.lower().endswith(SUFFIXES)
        }
        by_stem: dict[str, str] = {}
        for suffix in (".caption", ".txt"):  # the second counts where both are there
            by_stem |= {s: n for (s, end), n in texts.items() if end.lower() == suffix}
        folders = _text_folders(by_stem.values())
        found = {}
        for picture in pictures:
            stem = posixpath.splitext(picture)[0]
            tried = [stem, picture, *_beside(stem, folders)]
            name = next((by_stem[t] for t in tried if t in by_stem), None)
            if name is not None:
                found[picture] = name
        self.names = {} if self._are_figures(list(found.values())) else found
        self.alone = self._alone(by_stem)

    def read(self, picture: str) -> Answer:
        """The text of a picture, without the line break at its end, or why it can't be read.

        Neither, where there is none.
        """
        name = self.names.get(picture)
        return (None, None) if name is None else self.text(name)

    def _alone(self, by_stem: dict[str, str]) -> dict[str, list[str]]:
        taken = set(self.names.values())
        shapes = {_shape(name) for name in taken}
        found: dict[str, list[str]] = {}
        for name in sorted(by_stem.values()):
            if name not in taken and _shape(name) in shapes:
                found.setdefault(posixpath.dirname(name), []).append(name)
        return found

    def text(self, name: str) -> Answer:
        """What a file holds, as `read` gives it."""
        if self.root.looked_at(name) is None:  # a link that leads nowhere
            return None, about(NO_FILE, name)
        with self.root.open(name) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            return None, about(TOO_LONG, name)
        try:
            return data.decode("utf-8-sig").rstrip("\r\n"), None
        except UnicodeDecodeError:
            return None, about(NOT_UTF8, name)

    def _are_figures(self, names: list[str]) -> bool:
        words = [self._words(name) for name in names[:: max(1, len(names) // _LOOKED_AT)]]
        told = [held for held in words if held]
        return bool(told) and all(2 * sum(map(_is_figure, held)) > len(held) for held in told)

    def _words(self, name: str) -> list[bytes]:
        if self.root.looked_at(name) is None:
            return []
        with self.root.open(name) as file:
            return file.read(1 << 12).split()


def _text_folders(names: Iterable[str]) -> dict[str, list[str]]:
    """The folders that are called as if they held texts, by the folder that they are in."""
    found: dict[str, set[str]] = {}
    for folder in {posixpath.dirname(name) for name in names}:
        parts = folder.split("/")
        for depth, part in enumerate(parts):
            if part.lower() in _FOLDERS:
                found.setdefault("/".join(parts[:depth]), set()).add("/".join(parts[: depth + 1]))
    return {above: sorted(held) for above, held in found.items()}


def _beside(stem: str, folders: dict[str, list[str]]) -> Iterator[str]:
    """Where the text of a picture may be: `text/a/001` for `images/a/001`."""
    parts = stem.split("/")
    for depth in range(len(parts) - 1):
        for folder in folders.get("/".join(parts[:depth]), ()):
            yield "/".join([folder, *parts[depth + 1 :]])


def _shape(name: str) -> str:
    """A name with all its numbers alike."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, re.sub(r"\d+", "0", base))


def _is_figure(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
