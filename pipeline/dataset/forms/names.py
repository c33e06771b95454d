"""Names of files: which are images by their ending, which are no data, and which mean the same file."""

from __future__ import annotations

import contextlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

# All that `pipeline.dataset.decoding` reads by the names that it goes by, and what it can at least
# name: HEIC, JPEG XL, SVG.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo", ".png", ".apng", ".webp", ".gif"),
    *(".bmp", ".dib", ".tif", ".tiff", ".avif", ".avifs", ".ico", ".pcx", ".qoi"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".tga", ".icb", ".vda", ".vst", ".heic", ".heif", ".hif", ".jxl", ".svg"),
)

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

# What Spark, Hive, Impala, Delta, img2dataset, macOS and Windows lay beside data, which is none
# itself. All else that starts with "_" is data: cameras name their files so.
_BESIDE_DATA = frozenset(
    ["_SUCCESS", "_metadata", "_common_metadata", "_spark_metadata", "_temporary", "_tmp"]
    + ["_impala_insert_staging", "_delta_log", "_change_data", "__MACOSX"]
    + ["Thumbs.db", "thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", "$RECYCLE.BIN"]
)

# What tells of data and holds none: nobody misses it.
_OF_ALL = r"(readme|licen[cs]e|copying|notice|citation|changelog|contributing|authors|version)\b.*"
_ABOUT = re.compile(
    rf"{_OF_ALL}"
    r"|(sha\d+|md5|check)sums?(\.\w+)?|.*_stats\.json"
    r"|(dataset_infos?|dataset_dict|state|croissant)\.json"
    r"|.*\.(md|rst|bib|cff|sha\d+|md5|sfv|crc32?|log|lock|tmp|py|ipynb|sh|bat|js|css|html?"
    r"|ya?ml|toml|cfg|ini)",
    re.IGNORECASE,
)

# What ends so holds data whatever it is called: plates are photographed for their licences.
_OF_ROWS = (
    *(".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".ipc"),
    *(".tar", ".tgz", ".tbz2", ".txz", ".zip"),
)


def is_image(name: str) -> bool:
    """Whether a name ends as an image's does."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_beside_data(base: str) -> bool:
    """Whether a file or folder is hidden, or known to be no data."""
    return base.startswith(".") or base in _BESIDE_DATA


def is_about(name: str) -> bool:
    """Whether a file tells of a dataset and holds none of it: a README, a licence, checksums, code.

    Examples
    --------
    >>> is_about("LICENSE-APACHE.txt"), is_about("license-plates.csv")
    (True, False)
    """
    base = posixpath.basename(name)
    if is_image(base) or holds_rows(base):
        return False
    return _ABOUT.fullmatch(base) is not None


def tells_of_all(name: str) -> bool:
    """Whether a file is called as one that tells of all that lies beside it."""
    return re.fullmatch(_OF_ALL, posixpath.basename(name), re.IGNORECASE) is not None


def holds_rows(name: str) -> bool:
    """Whether a name ends as that of a table or an archive does."""
    return plain_name(name).endswith(_OF_ROWS)


def plain_name(name: str) -> str:
    """A name in lower case, without the suffix of a compression.

    Examples
    --------
    >>> plain_name("Rows.JSONL.gz")
    'rows.jsonl'
    """
    lower = name.lower()
    stem, suffix = posixpath.splitext(lower)
    return stem if suffix in COMPRESSED_SUFFIXES else lower


def readable(name: str) -> str:
    """A file's name as text, where its bytes are not UTF-8 and Python holds them as surrogates.

    Such names were written by a system with Windows' Latin-1, as nearly all of them were.

    Examples
    --------
    >>> readable("caf\\udce9.png")
    'café.png'
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "surrogateescape")
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    return name


def same_name(name: str) -> str:
    """The form that names have in common which differ by separator or Unicode's normal form.

    Examples
    --------
    >>> same_name("images\\\\./cafe\\u0301.png") == "images/caf\\u00e9.png"
    True
    """
    return posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/"))


def without_prefix(path: str, prefix: str | None) -> str:
    """A path less what it begins with, whole folders, whatever separates them; as it is where it does not.

    Examples
    --------
    >>> without_prefix("C:\\\\photos\\\\a\\\\1.png", "C:/photos")
    'a\\\\1.png'
    """
    start = f"{prefix.replace(chr(92), '/').rstrip('/')}/" if prefix else ""
    if not start or not path.replace("\\", "/").startswith(start):
        return path
    return path[len(start) :].lstrip("/\\")


class AlikeNames:
    """Finds a name by another that means the same.

    It may have other separators, another normal form, or another case; and less closely, percent signs
    for characters or blanks around it, or of an image no suffix.

    Parameters
    ----------
    names
        All that there are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._close: dict[str, list[str]] = {}
        self._loose: dict[str, list[str]] = {}
        for name in names:
            close = same_name(name).casefold()
            self._close.setdefault(close, []).append(name)
            if (loose := _loosened(name)) != close:
                self._loose.setdefault(loose, []).append(name)

    def find(self, name: str, loosely: bool = True) -> str | None:
        """The one name that means the same; None where there is none, or more than one.

        A difference in case counts only where nothing else fits, and a less close one after that, if
        it is to count. Whoever looks in several places looks closely in all of them first.
        """
        wanted = same_name(name)
        held = self._close.get(wanted.casefold()) or (self._loosely(wanted) if loosely else [])
        exact = [n for n in held if same_name(n) == wanted] or held
        return exact[0] if len(exact) == 1 else None

    def _loosely(self, name: str) -> list[str]:
        key = _loosened(name)
        suffixes = () if is_image(key) else IMAGE_SUFFIXES
        for tried in ([key], [f"{key}{suffix}" for suffix in suffixes]):
            held = (self._close, self._loose)
            if found := [n for one in tried for names in held for n in names.get(one, ())]:
                return found
        return []


def _loosened(name: str) -> str:
    """What names have in common that mean the same, but for their suffix."""
    # Escapes of another encoding, or signs that are none, would all be one and the same character.
    with contextlib.suppress(UnicodeDecodeError):
        name = unquote(name, errors="strict")
    return same_name(name).strip().casefold()
