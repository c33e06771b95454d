"""The rows of JSON files, however they are laid out in them.

A file is lines of objects; or one array of them; or one object that holds such an array (`{"data": […]}`);
or one that says by the names of images what their captions are.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.called import is_called
from pipeline.dataset.forms.compressed import damage_named, plain
from pipeline.dataset.forms.faulty import Faults, FaultyRow, images_in_json
from pipeline.dataset.forms.json_reader import UTF_16, JsonReader
from pipeline.dataset.forms.names import is_about, is_image, plain_name
from pipeline.dataset.forms.reasons import NO_OBJECT, about
from pipeline.dataset.forms.root import Root

JSONL_SUFFIXES = (".jsonl", ".ndjson")
# More JSON files than this are something else: one for each picture, say.
_MOST_FILES = 64
_LOOKED_AT = 8
_HEAD = 1 << 20
# What a dialogue of a picture and its description is called, and who speaks in it.
_DIALOGUES = (
    ("conversations", "from", "value", "gpt"),
    ("messages", "role", "content", "assistant"),
)
# An object that begins with a list of objects.
_LIST = re.compile(rb'\{\s*"[^"\\]*"\s*:\s*\[\s*\{')
# What lists for detectors hold; those of captions are COCO's form.
_OF_DETECTION = {"images", "annotations", "categories", "licenses"}
_TEXTS = {"text", "caption", "captions", "txt", "texts"}


class NoTable(DatasetError):
    """JSON that is well-formed, and no table."""


def is_lines(file: IO[bytes], name: str) -> bool:
    """Whether a JSON file has an object a line; it is at its beginning afterwards.

    One line may be an object that holds the rows, unless it is a row itself by the file's name and by
    what its columns are called.
    """
    head = file.read(_HEAD)
    file.seek(0)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    line, _, rest = start.partition(b"\n")
    if not start.startswith(b"{"):
        return not start.startswith(b"[")
    named = _names_an_image(line.decode("utf-8", "replace"))
    called = plain_name(name).endswith(JSONL_SUFFIXES)
    try:
        whole = json.loads(line)
    except (ValueError, RecursionError):
        # A line may be longer than what was read of it, but not one of several of an object.
        is_list = _LIST.match(line) is not None and not called
        return not rest and not named and not is_list
    if not isinstance(whole, dict):
        return False
    if rest.strip() or not (named or b"[{" in line):
        return True
    return called and any(_is_half(*held) for held in whole.items())


def _is_half(key: str, value: Any) -> bool:
    """Whether an object is a row by a column of it, which is called as a half and holds no rows itself."""
    items = value if isinstance(value, list) and key in _OF_DETECTION else []
    told = (item for item in items if isinstance(item, dict))
    if any(_is_text(k, v) for item in told for k, v in item.items()):
        return False
    return is_called("image", key) or is_called("text", key)


def _names_an_image(text: str) -> bool:
    """Whether the first key of an object is the name of an image."""
    return is_image(text.partition('"')[2].partition('"')[0])


def json_rows(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file that is one array or one object, in order.

    Raises
    ------
    DatasetError
        The file is not JSON.
    NoTable
        It is, and what of it the rows are can't be told.
    """
    reader = JsonReader(file, name)
    if reader.peek() == "[":
        yield from _objects(reader, reader.array())
        reader.end()
        return
    table = None
    for key in reader.entries():
        if is_image(key):
            yield _captioned(key, reader.value(), name)
        elif reader.peek() != "[":
            reader.value()
        else:
            for row in _table(reader, key):
                if table not in (None, key):
                    raise NoTable(
                        f"{name} holds more than one list, {table!r} and {key!r}; keep one"
                    )
                table = key
                yield row
    reader.end()


def _table(reader: JsonReader, key: str) -> Iterator[dict[str, Any]]:
    """The rows of a list in an object; none of one of plain values, or of what detectors learn from.

    A list of images is one where they have captions.
    """
    if key not in _OF_DETECTION:
        items = reader.array()
        first = next(items, None)
        if isinstance(first, dict):
            yield from _objects(reader, chain([first], items))
        else:
            deque(items, maxlen=0)
        return
    before: list[Any] | None = []
    for item in reader.array():
        if before is None:
            yield from _objects(reader, [item])
        elif key == "images":
            before.append(item)
            if isinstance(item, dict) and any(_is_text(k, item[k]) for k in item):
                yield from _objects(reader, before)
                before = None


def _is_text(key: str, value: Any) -> bool:
    """Whether a value of an image is its caption, or its captions."""
    items = value if isinstance(value, list) else [value]
    return is_called("text", key) and bool(items) and all(isinstance(i, str) for i in items)


def _objects(reader: JsonReader, items: Iterable[Any]) -> Iterator[dict[str, Any]]:
    faults = Faults(reader.name)
    for item in items:
        row = item
        if not isinstance(item, dict):
            row = FaultyRow({}, about(NO_OBJECT, str(item)[:20]))
        faults.count(row)
        yield row


def _captioned(image: str, told: Any, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"file_name": image}
    if isinstance(told, FaultyRow):
        return FaultyRow(row | told, told.fault)
    if isinstance(told, dict):
        return row | told
    if isinstance(told, list) and all(isinstance(text, str) for text in told):
        return row | {"captions": told}
    if told is not None and not isinstance(told, str):
        return FaultyRow(row, about(NO_OBJECT, str(told)[:20]))
    return row | {"text": told}


def with_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose text is in a dialogue, as LLaVA has it, with that text in a column of its own.

    Only a dialogue of one answer is a caption.
    """
    if isinstance(row, FaultyRow) or not _TEXTS.isdisjoint(row):
        return row
    for column, speaker, said, model in _DIALOGUES:
        turns = row.get(column)
        if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
            answers = [turn.get(said) for turn in turns if turn.get(speaker) == model]
            if len(answers) == 1 and isinstance(answers[0], str):
                return row | {"text": answers[0]}
    return row


def picture_tables(root: Root) -> list[str]:
    """The JSON files below a root whose first rows name images by their paths."""
    return [n for n, is_sound in _tables(root) if is_sound]


def wrong_tables(root: Root) -> list[str]:
    """The files that would be `picture_tables` if they were JSON, by the images below the root that they name.

    Reading them tells what is wrong, lest a table is passed over for a byte.
    """
    return [n for n, is_sound in _tables(root) if not is_sound]


def _tables(root: Root) -> Iterator[tuple[str, bool]]:
    """The JSON files that name images, and whether they can be read as far as they were."""
    names = [n for n in root.names() if plain_name(n).endswith(".json") and not is_about(n)]
    for name in names if len(names) <= _MOST_FILES else ():
        is_sound, named = _images_named(root, name)
        if is_sound:
            if named:
                yield name, True
        elif not {_base(n) for n in named}.isdisjoint(
            _base(n) for n in root.names() if is_image(n)
        ):
            yield name, False


def _images_named(root: Root, name: str) -> tuple[bool, list[str]]:
    """Whether the beginning of a file is JSON, and images that it names."""
    rows: list[Any] = []
    head = b""
    try:
        with root.open(name) as file, damage_named(name):
            content = plain(file)
            head = content.read(_HEAD)
            content.seek(0)
            if not head.startswith(UTF_16) and is_lines(content, name):
                line = content.readline()
                rows += [json.loads(line)] if line.strip() else []
            else:
                # Of a file that is not large all is looked at, for a second list may follow the first.
                most = _LOOKED_AT if len(head) == _HEAD else None
                rows.extend(islice(json_rows(content, name), most))
    except NoTable:
        return True, []
    except (DatasetError, ValueError, RecursionError):
        text = head.decode("utf-16" if head.startswith(UTF_16) else "utf-8", "replace")
        first = text.partition('"')[2].partition('"')[0]
        return False, [first, *images_in_json(text).values()]
    found = [row for row in rows[:_LOOKED_AT] if isinstance(row, dict)]
    return True, [v for row in found for v in row.values() if isinstance(v, str) and is_image(v)]


def _base(name: str) -> str:
    return posixpath.basename(name.replace("\\", "/")).lower()
