"""COCO's captions as JSON: `images`, and `annotations` with a `caption` of an `image_id`.

A row is an image with all its captions. Karpathy's `dataset_coco.json` is read as well, whose images
have their captions in `sentences`. The images lie anywhere below the dataset's folder.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.base import (
    BATCH_ROWS,
    IMAGE_CELL,
    Batch,
    DatasetError,
    Left,
    SourceFile,
)
from pipeline.dataset.forms.called import is_called
from pipeline.dataset.forms.compressed import damage_named, plain
from pipeline.dataset.forms.faulty import FAULT, FaultyRow
from pipeline.dataset.forms.json_reader import JsonReader
from pipeline.dataset.forms.names import is_about, is_image, plain_name
from pipeline.dataset.forms.reasons import NO_OBJECT, NO_STRING, about
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import Columns

FILE_NAME = "file_name"
CAPTIONS = "captions"
# More JSON files than this are something else: one for each picture, say.
_MOST_FILES = 64
_READ = 1 << 20
_HELD = 2
_LOST = "captions of images that are not listed"
_BESIDES = "values that annotations have besides a caption"
_OF_CAPTIONS = {"id", "image_id", "caption"}
_MARKS = ((b'"images"', b'"annotations"', b'"caption"'), (b'"images"', b'"sentences"', b'"raw"'))


def captions_files(root: Root) -> list[str]:
    """The JSON files below a root that hold captions of images; those called so come first."""
    names = [n for n in root.names() if plain_name(n).endswith(".json") and not is_about(n)]
    if len(names) > _MOST_FILES:
        return []
    called = [n for n in names if "caption" in posixpath.basename(n).lower()]
    # The others may be instances and keypoints of the same pictures, of some gigabytes.
    return [n for n in called if _has_captions(root, n)] or [
        n for n in names if n not in called and _has_captions(root, n)
    ]


def _has_captions(root: Root, name: str) -> bool:
    missing = [set(marks) for marks in _MARKS]
    before = b""
    with root.open(name) as file, damage_named(name):
        content = plain(file)
        while data := content.read(_READ):
            text = before + data
            if not before and not text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return False
            for marks in missing:
                marks -= {mark for mark in marks if mark in text}
                if not marks:
                    return True
            before = text[-16:]
    return False


class CocoSource:
    """Every JSON file of captions below a root."""

    halves: Mapping[str, str] = {"image": FILE_NAME, "text": CAPTIONS}

    def __init__(self, root: Root) -> None:
        self.root = root
        self._names: list[str] | None = None
        self._looked = False
        self._columns = Columns(
            [pa.field(FILE_NAME, IMAGE_CELL), pa.field(CAPTIONS, pa.list_(pa.string()))]
        )
        self._held: dict[tuple[str, str], pa.RecordBatch] = {}
        self._lost: dict[str, Left] = {}
        self._besides: dict[str, Left] = {}
        self._by_base: dict[str, list[str]] = {}
        for name in filter(is_image, root.names()):
            self._by_base.setdefault(posixpath.basename(name), []).append(name)

    def names(self) -> list[str]:
        if self._names is None:
            self._names = captions_files(self.root)
        return self._names

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if not self._looked:
            for name in self.names():
                self._columns.see(name, self._rows(name))
            self._looked = True
        return self._columns.schema()

    def left(self, name: str) -> Mapping[str, Left]:
        """Captions of images that a file does not list, and what is said of captions besides."""
        return {_LOST: self._lost.get(name, Left()), _BESIDES: self._besides.get(name, Left())}

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        table = self._asked(name, columns)
        for start in range(0, table.num_rows, BATCH_ROWS):
            part = table.slice(start, BATCH_ROWS)
            yield np.arange(start, start + part.num_rows), part

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        table = self._asked(name, columns)
        if len(positions) and positions[-1] >= table.num_rows:
            raise DatasetError(f"{name} has no row {positions[-1]}: it has changed")
        for start in range(0, len(positions), BATCH_ROWS):
            part = positions[start : start + BATCH_ROWS]
            yield part, table.take(pa.array(part))

    def _asked(self, name: str, columns: Sequence[str] | None) -> pa.RecordBatch:
        """All rows of a file with the columns asked for, and why some can't be read."""
        table = self._table(name)
        faults = [FAULT] * (FAULT in table.schema.names)
        return table if columns is None else table.select([*columns, *faults])

    def _table(self, name: str) -> pa.RecordBatch:
        """All rows of a file: names and captions, of no more bytes than the file."""
        key = (name, self.root.version(name))
        if key not in self._held:
            rows, schema = self._rows(name), self.schema()
            where = [f"{name}, image {number}" for number in range(len(rows))]
            while len(self._held) >= _HELD:
                del self._held[next(iter(self._held))]
            self._held[key] = self._columns.batch(name, rows, schema.names, where)
        return self._held[key]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        images: list[dict[str, Any]] = []
        captions: dict[str, list[str]] = {}
        faults: dict[str, str] = {}
        besides: Counter[str] = Counter()
        with self.root.open(name) as file, damage_named(name):
            reader = JsonReader(plain(file), name)
            for key in reader.entries():
                if key == "images":
                    images = [_object(item) for item in reader.array()]
                elif key == "annotations":
                    for item in reader.array():
                        told = _object(item)
                        besides.update(told.keys() - _OF_CAPTIONS)
                        image, texts = str(told.get("image_id")), _texts(told.get("caption"))
                        if isinstance(told, FaultyRow):
                            faults[image] = told.fault
                        elif texts is None:
                            faults[image] = about(NO_STRING, str(told["caption"])[:60])
                        elif texts:
                            captions.setdefault(image, []).extend(texts)
                else:
                    reader.value()
            reader.end()
        rows = [self._row(name, image, captions, faults) for image in images]
        self._lost[name], self._besides[name] = Left(), Left()
        for field, count in sorted(besides.items()):
            self._besides[name].add(f"{name}: {field}", count)
        for image, texts in captions.items():
            self._lost[name].add(f"{name}: image_id {image}", len(texts))
        return rows

    def _row(
        self,
        name: str,
        image: dict[str, Any],
        captions: dict[str, list[str]],
        faults: Mapping[str, str],
    ) -> dict[str, Any]:
        fault = image.fault if isinstance(image, FaultyRow) else faults.get(str(image.get("id")))
        # Numbers here and strings of digits there are the same ids.
        told = captions.pop(str(image["id"]), None) if image.get("id") is not None else None
        if told is None and isinstance(image.get("sentences"), list):
            told = [s["raw"] for s in image["sentences"] if isinstance(s, dict) and s.get("raw")]
            drop = ("sentences", "sentids", "filename", "filepath")
            path = posixpath.join(str(image.get("filepath") or ""), str(image.get("filename")))
            number = image.get("cocoid", image.get("imgid"))
            image = {"id": number, FILE_NAME: path} | {
                key: value for key, value in image.items() if key not in drop
            }
        if told is None:
            told = next(filter(None, map(_own_texts, image.items())), None)
        else:
            # The column of captions has place for both.
            told = [*told, *_own_texts((CAPTIONS, image.get(CAPTIONS, [])))]
        named = image.get(FILE_NAME)
        cell = {"path": self._place(name, named)} if isinstance(named, str) else None
        row = image | {FILE_NAME: cell, CAPTIONS: told}
        return row if fault is None else FaultyRow(row, fault)

    def _place(self, name: str, path: str) -> str:
        """Where an image is that a file of captions names, most often without its folder."""
        for tried in (posixpath.join(posixpath.dirname(name), path), path):
            if posixpath.normpath(tried) in self.root:
                return posixpath.normpath(tried)
        ending = f"/{path}"
        found = [n for n in self._by_base.get(posixpath.basename(path), ()) if n.endswith(ending)]
        if len(found) > 1:
            # Of train2017 and val2017, the one that the file of captions is about.
            told = posixpath.basename(name).lower()
            found = [n for n in found if any(p and p.lower() in told for p in n.split("/")[:-1])]
        return found[0] if len(found) == 1 else path


def _own_texts(entry: tuple[str, Any]) -> list[str]:
    """The captions that an image has itself under a key."""
    key, value = entry
    texts = value if isinstance(value, list) else [value]
    return texts if is_called("text", key) and all(isinstance(t, str) for t in texts) else []


def _texts(caption: Any) -> list[str] | None:
    """The captions of an annotation, most often one; None where it has another kind of thing."""
    texts = caption if isinstance(caption, list) else [] if caption is None else [caption]
    return texts if all(isinstance(text, str) for text in texts) else None


def _object(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else FaultyRow({}, about(NO_OBJECT, str(item)[:20]))
