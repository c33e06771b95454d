"""img2dataset's output folders: its downloads, and its failed downloads as rows without an image.

Each shard has a Parquet file that lists every row tried, with `key`, `status` and `error_message`;
the images are in a tar, a folder, or a column of that file, as its `output_format` had it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import IMAGE_CELL, Batch, DatasetError, Left, SourceFile
from pipeline.dataset.forms.called import is_called
from pipeline.dataset.forms.names import IMAGE_SUFFIXES, is_image
from pipeline.dataset.forms.parquet import ParquetSource
from pipeline.dataset.forms.reasons import NO_FILE, about
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.tars import Member, read_member
from pipeline.dataset.forms.webdataset import IMAGE, WebDatasetSource

_SHARD = re.compile(r"(?:.*/)?\d+\.parquet")
_SAID = "error_message"
_COLUMNS = ("jpg", "jpeg", "png", "webp")
_UNLISTED = "samples of a tar that its shard's Parquet does not list"
_UNTOLD = "captions beside images whose rows have none"


class _Shards(ParquetSource):
    def names(self) -> list[str]:
        return [n for n in super().names() if _SHARD.fullmatch(n)]


class Img2DatasetSource:
    """Every shard below a root."""

    halves: Mapping[str, str] = {"image": IMAGE}

    def __init__(self, root: Root) -> None:
        self.root = root
        self._shards = _Shards(root)
        self._tars = WebDatasetSource(root)
        self._files: tuple[str, dict[str, str]] | None = None

    def keep_in(self, folder: Path) -> None:
        """Keep there where the members of the tars lie."""
        self._tars.keep_in(folder)

    def files(self) -> list[SourceFile]:
        found = []
        for shard in self._shards.files():
            tar = self._tar(shard.name)
            version = shard.version
            if tar is not None:
                version += f"+{self.root.version(tar)}"
            elif inside := sorted(self._images_of(shard.name).values()):
                version += f"+{self.root.listing_version(inside)}"
            found.append(SourceFile(shard.name, shard.url, version))
        return found

    def used(self) -> list[str]:
        """The shards, their tars, and what stands beside an image of what the shard says of it."""
        shards = self._shards.names()
        folders = {_stem(name) for name in shards}
        beside = [
            name
            for name in self.root.names()
            if posixpath.dirname(name) in folders and name.endswith((".txt", ".json"))
        ]
        return shards + beside + [f"{folder}.tar" for folder in folders]

    def left(self, name: str) -> dict[str, Left]:
        """What lies beside a shard's rows: samples that it does not list, captions that it does not tell."""
        told = self._told(name)
        samples, captions = Left(), Left()
        for place, suffixes in self._beside(name):
            key = posixpath.basename(place)
            if key not in told and any(is_image(f"x{suffix}") for suffix in suffixes):
                samples.add(place)
            elif not told.get(key, True) and ".txt" in suffixes:
                captions.add(f"{place}.txt")
        return {_UNLISTED: samples, _UNTOLD: captions}

    def _told(self, name: str) -> dict[str, bool]:
        """The keys of a shard's rows, and whether it tells a caption of each."""
        names = self._shards.schema().names
        texts = next((column for column in names if is_called("text", column)), None)
        told: dict[str, bool] = {}
        for _, batch in self._shards.batches(name, ["key", *([texts] if texts else [])]):
            keys = map(str, batch["key"].to_pylist())
            values = batch[texts].to_pylist() if texts else [None] * batch.num_rows
            told |= dict(zip(keys, map(bool, values), strict=True))
        return told

    def _beside(self, name: str) -> Iterator[tuple[str, list[str]]]:
        """The samples in a shard's tar, or the files of text in its folder: their places and suffixes."""
        tar, folder = self._tar(name), _stem(name)
        if tar is not None:
            index = self._tars.index(tar)
            for key, members in index.samples(range(len(index))):
                yield key, [f".{member.extension}" for member in members]
        else:
            for stem in self._texts.get(folder, ()):
                yield stem, [".txt"]

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        """The files of text by folder, without their suffix."""
        found: dict[str, list[str]] = {}
        for name in self.root.names():
            if name.endswith(".txt"):
                found.setdefault(posixpath.dirname(name), []).append(name.removesuffix(".txt"))
        return found

    def schema(self) -> pa.Schema:
        schema = self._shards.schema()
        if "key" not in schema.names or "status" not in schema.names:
            raise DatasetError(
                f"{self._shards.names()[0]} is not img2dataset's: it has no columns key and status"
                f" (columns: {', '.join(schema.names)})"
            )
        kept = [field for field in schema if field.name not in (self._image_column(), IMAGE)]
        return pa.schema([*kept, pa.field(IMAGE, IMAGE_CELL)])

    def advice(self) -> list[str]:
        """See `ParquetSource.advice`."""
        return self._shards.advice()

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[Batch]:
        asked = self._asked(columns)
        yield from self._with_images(name, self._shards.batches(name, asked), columns)

    def take(self, name: str, positions: np.ndarray, columns: Sequence[str]) -> Iterator[Batch]:
        asked = self._asked(columns)
        yield from self._with_images(name, self._shards.take(name, positions, asked), columns)

    def _tar(self, name: str) -> str | None:
        """The tar beside a shard, where there is one and it was begun."""
        tar = f"{_stem(name)}.tar"
        return tar if tar in self.root and not self.root.is_empty(tar) else None

    def _image_column(self) -> str | None:
        schema = self._shards.schema()
        held = [c for c in _COLUMNS if c in schema.names]
        return next((c for c in held if pa.types.is_binary(schema.field(c).type)), None)

    def _asked(self, columns: Sequence[str]) -> list[str]:
        needed = [column for column in columns if column != IMAGE]
        if IMAGE in columns:
            held = self._image_column()
            said = _SAID if _SAID in self._shards.schema().names else None
            needed += [c for c in ("key", "status", said, held) if c and c not in needed]
        return needed

    def _with_images(
        self, name: str, batches: Iterator[Batch], columns: Sequence[str]
    ) -> Iterator[Batch]:
        tar = self._tar(name) if IMAGE in columns and not self._image_column() else None
        file = self.root.open(tar) if tar is not None else None
        try:
            for positions, batch in batches:
                arrays = [
                    self._cells(name, batch, file) if column == IMAGE else batch[column]
                    for column in columns
                ]
                yield positions, pa.RecordBatch.from_arrays(arrays, names=list(columns))
        finally:
            if file is not None:
                file.close()

    def _cells(self, name: str, batch: pa.RecordBatch, file: IO[bytes] | None) -> pa.Array:
        keys = [str(key) for key in batch["key"].to_pylist()]
        statuses = batch["status"].to_pylist()
        told = batch[_SAID].to_pylist() if _SAID in batch.schema.names else [None] * len(keys)
        held = self._image_column()
        if held:
            images = batch[held].to_pylist()
            found = [{"bytes": data} if data is not None else None for data in images]
        elif file is not None:
            found = self._from_tar(f"{_stem(name)}.tar", file, keys)
        else:
            files = self._images_of(name)
            found = [{"path": files[key]} if key in files else None for key in keys]
        cells = [
            cell if cell is not None else {"reason": _reason(key, status, said)}
            for cell, key, status, said in zip(found, keys, statuses, told, strict=True)
        ]
        return pa.array(cells, IMAGE_CELL)

    def _from_tar(
        self, tar: str, file: IO[bytes], keys: Sequence[str]
    ) -> list[dict[str, Any] | None]:
        """The cells of the images in a tar by their keys; None where it has none of a key."""
        index = self._tars.index(tar)
        names = pc.replace_substring_regex(index.table["key"], ".*/", "").combine_chunks()
        places = pc.index_in(pa.array(keys, pa.string()), value_set=names)
        held = index.samples(places.drop_null().to_pylist())
        found: list[dict[str, Any] | None] = []
        for key, there in zip(keys, places.is_valid().to_pylist(), strict=True):
            images = (
                [m for m in next(held)[1] if f".{m.extension}" in IMAGE_SUFFIXES] if there else []
            )
            found.append(_cell(tar, file, key, images[-1]) if images else None)
        return found

    def _images_of(self, name: str) -> dict[str, str]:
        """The image files in a shard's folder, by key."""
        folder = _stem(name)
        if self._files is None or self._files[0] != folder:
            inside = self.root.images(folder)
            by_key = {posixpath.splitext(posixpath.basename(n))[0]: n for n in inside}
            self._files = (folder, by_key)
        return self._files[1]


def _cell(tar: str, file: IO[bytes], key: str, member: Member) -> dict[str, Any]:
    return {"bytes": read_member(tar, file, member), "path": f"{key}.{member.extension}"}


def _stem(name: str) -> str:
    return name.removesuffix(".parquet")


def _reason(key: str, status: str | None, said: str | None) -> str:
    """What went wrong, by img2dataset's status and its error's message."""
    if status is None or status == "success":
        return about(NO_FILE, key)
    what = {"failed_to_download": "download failed", "failed_to_resize": "resizing failed"}
    kind = what.get(status, status.replace("_", " "))
    return f"{kind}: {said}" if said else kind
