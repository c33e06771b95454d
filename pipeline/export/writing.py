"""An export's rows on their way into its files; files that would be what they are stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.export.formats import ShardWriter, Writer
from pipeline.export.groups import (
    Group,
    Stamp,
    digest_of,
    kept_groups,
    said_of,
    stamp,
    take_over,
)
from pipeline.export.settings import ExportSettings
from pipeline.export.tally import JUDGED_BY, Sieve
from pipeline.ledger.review import Verdict
from pipeline.storage.digests import digest
from pipeline.storage.files import read_json
from pipeline.storage.versions import MARK

# Of the layouts that are written in shards: another number has all files written anew.
LAYOUT = 2


class Writing:
    """What is at hand while an export is written.

    Attributes
    ----------
    layout : str
        A digest of all that a file's content depends on besides its rows.
    written, taken_over : int
        Files of shards that were written, and that stayed what they were.
    """

    def __init__(
        self,
        completed: ds.Dataset,
        folder: Path,
        settings: ExportSettings,
        columns: Sequence[str] | None,
        verdicts: Mapping[str, Verdict],
        cuts: Mapping[str, float],
        advance: Callable[[int], None] | None,
    ) -> None:
        self._completed = completed
        self._folder = folder
        self._settings = settings
        self._verdicts = verdicts
        self._cuts = cuts
        self._advance = advance
        self._sieve = Sieve(settings.only, verdicts, cuts, settings.min_confidence)
        # A least score that another cut replaces is no part of what is in a file.
        own = settings.model_dump(mode="json", exclude={"name", "min_score", "best"})
        self.layout = digest(
            json.dumps([LAYOUT, own, columns]), completed.schema.serialize().to_pybytes()
        )
        self.written = 0
        self.taken_over = 0

    def in_one(self, writer: Writer) -> list[Group]:
        """Write all rows to a layout that is one whole."""
        group = Group()
        for path in self._completed.files:
            for batch, _ in self._kept(Path(path), *self._judged(Path(path), group)):
                writer.add(batch)
        return [group]

    def in_shards(self, writer: ShardWriter, scratch: Path) -> list[Group]:
        """Take over what may stay of the export that stands, and write the other files."""
        parts = {stamp(Path(path)): Path(path) for path in self._completed.files}
        said = said_of(self._completed, self._verdicts)
        groups = kept_groups(self._former(), self._folder, parts, said, self._cuts)
        held = {part for group in groups for part in group.parts}
        for group in groups:
            for place in group.files:
                take_over(self._folder / place, scratch / place)
                self.taken_over += 1
        fresh = list(self._fresh(writer, scratch, [p for p in parts if p not in held], parts))
        for group in fresh:
            group.said = digest_of(said, (parts[part] for part in group.parts))
        groups += fresh
        _number(groups, writer, scratch)
        writer.files = dict(sorted(item for group in groups for item in group.counts.items()))
        return groups

    def _former(self) -> list[Group]:
        """The groups of the export that stands, where its files may be taken over."""
        mark = read_json(self._folder / MARK) or {}
        if mark.get("layout") != self.layout:
            return []
        return [Group.parse(values) for values in mark["groups"]]

    def _fresh(
        self, writer: ShardWriter, scratch: Path, new: Sequence[Stamp], parts: Mapping[Stamp, Path]
    ) -> Iterator[Group]:
        """Write the rows of some parts to files of at most `shard_rows` each."""
        room, group, path = self._settings.shard_rows, Group(), None
        in_file = 0
        for part in new:
            one = Group()
            judged = self._judged(parts[part], one)
            if group.parts and group.tally.rows + one.tally.rows > room:
                writer.finish()
                group.closed = True
                yield group
                group, path = Group(), None
            group.parts.append(part)
            group.tally.add(one.tally)
            group.bounds.add(one.bounds)
            for whole, keys in self._kept(parts[part], *judged):
                start = 0
                while start < whole.num_rows:
                    if path is None or in_file == room:
                        writer.finish()
                        path, in_file = scratch / f".{self.written}.new", 0
                        writer.begin(path)
                        self.written += 1
                        group.counts[path.name] = 0
                    batch = whole.slice(start, room - in_file)
                    writer.add_of(batch, keys[start : start + batch.num_rows])
                    start += batch.num_rows
                    in_file += batch.num_rows
                    group.counts[path.name] += batch.num_rows
        writer.finish()
        if group.parts:
            yield group

    def _judged(self, path: Path, group: Group) -> tuple[ds.Dataset, pa.Array]:
        """A part, and which of its rows are exported; counted in a group."""
        part = ds.dataset(str(path), schema=self._completed.schema, format="parquet")
        kept = self._sieve.kept(part.to_table(columns=list(JUDGED_BY)), group.tally, group.bounds)
        return part, kept

    def _kept(
        self, path: Path, part: ds.Dataset, kept: pa.Array
    ) -> Iterator[tuple[pa.RecordBatch, list[str]]]:
        """The rows of a part that are exported, with keys of their own, some at a time."""
        number, start = int("".join(filter(str.isdigit, path.stem)) or 0), 0
        # Few row groups ahead: they hold images.
        scanner = part.scanner(batch_size=100, batch_readahead=2, fragment_readahead=1)
        for batch in scanner.to_batches():
            mask = kept.slice(start, batch.num_rows)
            rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False)) + start
            start += batch.num_rows
            if len(rows):
                keys = [f"{number:06d}{row:06d}" for row in rows]
                yield batch.select(self._completed.schema.names).filter(mask), keys
            if self._advance and batch.num_rows:
                self._advance(batch.num_rows)


def _number(groups: Sequence[Group], writer: ShardWriter, scratch: Path) -> None:
    """Give new files their places, so that all of the export are numbered from 0 on.

    Files that were taken over keep theirs, unless others before them are gone.
    """
    total = sum(len(group.counts) for group in groups)
    places = [writer.place(number) for number in range(total)]
    taken = {place for group in groups for place in group.counts} & set(places)
    free = iter([place for place in places if place not in taken])
    for group in groups:
        counts, files = {}, {}
        for name, rows in group.counts.items():
            place = name if name in taken else next(free)
            if place != name:
                (scratch / place).parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).rename(scratch / place)
            counts[place], files[place] = rows, stamp(scratch / place)
        group.counts, group.files = counts, files
