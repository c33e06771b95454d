"""The rows of a JSON file that is one array, or an object that holds one: LLaVA's lists, for one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.compressed import damage_named, plain
from pipeline.dataset.forms.json_reader import JsonReader
from pipeline.dataset.forms.names import is_about, is_image, plain_name
from pipeline.dataset.forms.root import Root

# More JSON files than this are something else: one for each picture, say.
_MOST_FILES = 64
_LOOKED_AT = 8


def is_array(file: IO[bytes]) -> bool:
    """Whether a JSON file is one array; it is at its beginning afterwards."""
    head = file.read(4096)
    file.seek(0)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def array_rows(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """The objects of an array, in order.

    Raises
    ------
    DatasetError
        The file is not JSON, or an item is no object.
    """
    for position, item in enumerate(JsonReader(file, name).array()):
        if not isinstance(item, dict):
            raise DatasetError(f"{name}, row {position}: not an object with columns")
        yield item


def picture_tables(root: Root) -> list[str]:
    """The JSON files below a root whose first rows name images by their paths."""
    names = [n for n in root.names() if plain_name(n).endswith(".json") and not is_about(n)]
    return [n for n in names if len(names) <= _MOST_FILES and _names_images(root, n)]


def _names_images(root: Root, name: str) -> bool:
    try:
        with root.open(name) as file, damage_named(name):
            content = plain(file)
            if not is_array(content):
                return False
            rows = list(islice(array_rows(content, name), _LOOKED_AT))
    except DatasetError:
        return False
    return any(isinstance(v, str) and is_image(v) for row in rows for v in row.values())
