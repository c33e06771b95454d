"""The rows of JSON files, however they are laid out in them.

A file is lines of objects; or one array of them; or one object that holds such an array (`{"data": […]}`);
or one that says by the names of images what their captions are.
"""

from __future__ import annotations

import json
import posixpath
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
from pipeline.dataset.forms.strict_json import parse

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
        if rest.strip():
            # One of several of an object, or a row that can't be read.
            following = parse(rest.lstrip().partition(b"\n")[0].decode("utf-8", "replace"))
            return called and type(following) is dict
        # A line may be longer than what was read of it.
        return not named and not (_is_alone(file) and _holds_rows(file, name, called))
    if not isinstance(whole, dict):
        return False
    if rest.strip() or not (named or b"[{" in line):
        return True
    return called and any(_is_half(*held) for held in whole.items())


def _is_alone(file: IO[bytes]) -> bool:
    """Whether nothing follows the first line of a file."""
    file.seek(0)
    ended = False
    while block := file.read(_HEAD):
        before, end, after = block.partition(b"\n")
        if (block if ended else after).strip():
            file.seek(0)
            return False
        ended = ended or bool(end)
    file.seek(0)
    return True


def _holds_rows(file: IO[bytes], name: str, called: bool) -> bool:
    """Whether a file that is one long object holds the rows, and is none itself; it is at its beginning after."""
    reader, found = JsonReader(file, name), False
    try:
        for key in reader.entries():
            if reader.peek() != "[":
                reader.value()
                held: Any = None
            else:
                items = reader.array()
                held = list(islice(items, 1))
                deque(items, maxlen=0)
                found = found or isinstance(next(iter(held), None), dict)
            if called and _is_half(key, held):
                return False
    except DatasetError:
        # Reading it tells what is wrong.
        return found or not called
    finally:
        file.seek(0)
    return found


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
                for row in islice(json_rows(content, name), most):
                    rows.append(row)
    except NoTable:
        # Where its rows have captions, reading it tells what has to be changed.
        described = any(_is_text(k, v) for row in rows[:_LOOKED_AT] for k, v in row.items())
        return not described, _images_of(rows) if described else []
    except (DatasetError, ValueError, RecursionError):
        text = head.decode("utf-16" if head.startswith(UTF_16) else "utf-8", "replace")
        first = text.partition('"')[2].partition('"')[0]
        return False, [first, *images_in_json(text).values()]
    return True, _images_of(rows)


def _images_of(rows: list[Any]) -> list[str]:
    """Images that the first rows name."""
    found = [row for row in rows[:_LOOKED_AT] if isinstance(row, dict)]
    return [v for row in found for v in row.values() if isinstance(v, str) and is_image(v)]


def _base(name: str) -> str:
    return posixpath.basename(name.replace("\\", "/")).lower()
