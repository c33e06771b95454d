"""Files of a dataset's folder that its form made no use of, told by their suffixes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from pipeline.dataset.forms.names import COMPRESSED_SUFFIXES, is_about, is_image, tells_of_all

_SHOWN = 2
_KINDS = 6
# What has to be done for these to be read.
_PACKED = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst")
_UNREADABLE = (
    *(".tfrecord", ".tfrecords", ".lmdb", ".mdb", ".h5", ".hdf5", ".npz", ".npy", ".pkl"),
    *(".pickle", ".pt", ".xlsx", ".xls", ".mat", ".db", ".sqlite", ".beton", ".mds"),
)


# Texts that tell of a dataset, but for those that are called as a picture beside them, or as captions.
_TEXTS = (".md", ".rst", ".htm", ".html", ".yml", ".yaml", ".toml", ".log")


def may_hold_data(names: Sequence[str]) -> list[str]:
    """Those of some files that may hold data: of what only tells of it, the texts beside pictures, and captions.

    Examples
    --------
    >>> may_hold_data(["1.md", "1.png", "2.png.md", "2.png", "README.md", "notes.md", "captions.yaml"])
    ['1.md', '1.png', '2.png.md', '2.png', 'captions.yaml']
    """
    pictures = {name for name in names if is_image(name)}
    stems = pictures | set(map(_stem, pictures))
    return [n for n in names if not is_about(n) or (_is_text(n) and _may_tell(n, stems))]


def _may_tell(name: str, stems: set[str]) -> bool:
    """Whether a text is called as a picture is beside it, or as captions of all of them."""
    return _stem(name) in stems or "caption" in posixpath.basename(name).lower()


def _is_text(name: str) -> bool:
    return name.lower().endswith(_TEXTS) and not tells_of_all(name)


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def by_suffix(names: Iterable[str]) -> list[str]:
    """Files in words, by suffix, the most frequent first: "413 .txt files (001.txt, 002.txt, …)"."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(suffix_of(name), []).append(name)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    told = [_told(suffix, files) for suffix, files in ordered[:_KINDS]]
    rest = sum(len(files) for _, files in ordered[_KINDS:])
    return [*told, f"{rest} more files"] if rest else told


def unused(names: Iterable[str]) -> list[str]:
    """Lines on files that were not used, one a suffix, and what would let them be."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(suffix_of(name), []).append(name)
    lines = []
    for suffix, files in sorted(found.items(), key=lambda item: -len(item[1])):
        one = len(files) == 1
        line = f"{_told(suffix, files)} {'is' if one else 'are'} not used"
        if is_image(f"x{suffix}"):
            line += f": no row names {'it' if one else 'them'}"
        elif suffix.endswith(_PACKED):
            line += (
                f"; unpack {'it' if one else 'them'} if {'it holds' if one else 'they hold'} data"
            )
        elif suffix in _UNREADABLE:
            line += "; that form is not read: write Parquet, JSON Lines, CSV or WebDataset of it"
        elif suffix in _TEXTS:
            line += "; texts beside pictures are read of .txt files"
        lines.append(line)
    return lines


def empty_files(names: Sequence[str]) -> str:
    """Files without a byte in words.

    Examples
    --------
    >>> empty_files(["a.csv", "b.csv"])
    '2 empty files (a.csv, b.csv)'
    """
    return _counted("empty file", names)


def suffix_of(name: str) -> str:
    """A name's suffix in lower case, with the one before where it is a compression's.

    Examples
    --------
    >>> suffix_of("a/rows.JSONL.gz"), suffix_of("LIST")
    ('.jsonl.gz', '')
    """
    stem, suffix = posixpath.splitext(posixpath.basename(name).lower())
    before = posixpath.splitext(stem)[1] if suffix in COMPRESSED_SUFFIXES else ""
    return before + suffix


def _told(suffix: str, files: list[str]) -> str:
    return _counted(f"{suffix} file" if suffix else "file without a suffix", files)


def _counted(kind: str, files: Sequence[str]) -> str:
    shown = ", ".join(files[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")
    plural = kind if len(files) == 1 else kind.replace("file", "files", 1)
    return f"{len(files)} {plural} ({shown})"
