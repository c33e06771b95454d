"""The rows of JSON files, however they are laid out in them.

A file is lines of objects; or one array of them; or one object that holds such an array (`{"data": […]}`);
or one that says by the names of images what their captions are.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.called import is_called
from pipeline.dataset.forms.compressed import damage_named, plain
from pipeline.dataset.forms.faulty import Faults, FaultyRow, images_in_json
from pipeline.dataset.forms.json_reader import UTF_16, JsonReader, MoreFollows
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
# What lists for detectors hold; those of captions are COCO's form.
_OF_DETECTION = {"images", "annotations", "categories", "licenses"}
_TEXTS = {"text", "caption", "captions", "txt", "texts"}


def is_lines(file: IO[bytes], name: str) -> bool:
    """Whether a JSON file has an object a line; it is at its beginning afterwards.

    One line may be an object that holds the rows, unless the file's name says that it is one.
    """
    head = file.read(_HEAD)
    file.seek(0)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    line, _, rest = start.partition(b"\n")
    if not start.startswith(b"{"):
        return not start.startswith(b"[")
    try:
        whole = isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        # A line may be longer than what was read of it, but not one of several of an object.
        return not rest and not _names_an_image(line.decode("utf-8", "replace"))
    named = _names_an_image(line.decode("utf-8", "replace"))
    called = plain_name(name).endswith(JSONL_SUFFIXES)
    return bool(whole) and (called or bool(rest.strip()) or not (named or b"[{" in line))


def _names_an_image(text: str) -> bool:
    """Whether the first key of an object is the name of an image."""
    return is_image(text.partition('"')[2].partition('"')[0])


def json_rows(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file that is one array or one object, in order.

    Raises
    ------
    DatasetError
        The file is not JSON, or holds no rows.
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
                    raise DatasetError(
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
    names = [n for n in root.names() if plain_name(n).endswith(".json") and not is_about(n)]
    return [n for n in names if len(names) <= _MOST_FILES and _names_images(root, n)]


def _names_images(root: Root, name: str) -> bool:
    rows: list[Any] = []
    head = b""
    try:
        with root.open(name) as file, damage_named(name):
            content = plain(file)
            head = content.read(_HEAD)
            content.seek(0)
            if head.startswith(UTF_16):  # which the reading will tell of
                return bool(images_in_json(head.decode("utf-16", "replace")))
            if is_lines(content, name):
                line = content.readline()
                rows += [json.loads(line)] if line.strip() else []
            else:
                rows.extend(islice(json_rows(content, name), _LOOKED_AT))
    except MoreFollows:
        pass  # which the reading will tell of
    except (DatasetError, ValueError, RecursionError):
        # The reading will tell of that too, lest a table is passed over for a byte.
        text = head.decode("utf-8", "replace")
        return bool(images_in_json(text)) or _names_an_image(text)
    found = [row for row in rows if isinstance(row, dict)]
    return any(isinstance(v, str) and is_image(v) for row in found for v in row.values())
