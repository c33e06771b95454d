"""The ledger: which rows are done, in which part of the completed dataset, under which settings.

A shard is done when its manifest stands; the manifest is written, whole, after its data. The
manifests are the only truth: a part without one is debris of a run that was cut off.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.schema import STATUSES
from pipeline.storage.digests import DIGEST, digest, in_hex, packed
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import sync_folder, write_whole, writing_whole

logger = logging.getLogger(__name__)

LEDGER_VERSION = 3

# A finished row: digests of its observed halves and of its other columns, and what became of it.
ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("content", DIGEST),
        ("extra", DIGEST),
        ("status", pa.string()),
        ("missing", pa.string()),
        ("first_attempt", pa.int32()),
    ]
)
DIGESTS = ("content", "extra")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a ledger; `status` is empty where the row is still to be done.

    `first_attempt` is above 1 where a person has rejected the attempts before it.
    """

    id: str
    content: str
    extra: str | None
    status: str
    missing: str | None
    first_attempt: int = 1


def entry_table(entries: Iterable[Entry]) -> pa.Table:
    """Entries as a table of `ROWS`."""
    held = list(entries)
    return _table({name: [getattr(e, name) for e in held] for name in ROWS.names})


def entry_columns(rows: pa.Table) -> dict[str, list[Any]]:
    """The columns of a table of `ROWS` as an `Entry` has them, digests in hex."""
    digests = {name: in_hex(rows[name]) for name in DIGESTS}
    return {name: digests.get(name) or rows[name].to_pylist() for name in ROWS.names}


def _table(columns: Mapping[str, list[Any]]) -> pa.Table:
    digests = {name: packed(columns[name]) for name in DIGESTS}
    return pa.table({name: digests.get(name, columns[name]) for name in ROWS.names}, schema=ROWS)


@dataclass(frozen=True)
class Manifest:
    """A finished shard.

    Attributes
    ----------
    shard, part : str
        Its name and that of its file in `completed/`.
    size : int
        Bytes of that file.
    run_id : str
    settings : dict
        A digest by section of the config that the rows depend on. Content and settings together
        are the key under which a row is done.
    layout : str
        A digest of the part's schema.
    rows : pyarrow.Table
        Of schema `ROWS`, in the part's order.
    replaces : str, optional
        The shard whose rows live on in this one; it is gone as soon as this one stands.
    """

    shard: str
    part: str
    size: int
    run_id: str
    settings: Mapping[str, str]
    layout: str
    rows: pa.Table
    replaces: str | None = None

    def dump(self) -> str:
        values = dict(vars(self), version=LEDGER_VERSION, rows=entry_columns(self.rows))
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        values = json.loads(text)
        if values.pop("version") != LEDGER_VERSION:
            raise ConfigError(
                "the run's folder was written by another version of this program;"
                " give the config another `name` or `output`"
            )
        values["rows"] = _table(values["rows"])
        return cls(**values)


@contextmanager
def writing_part(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file that is there whole once the block has ended well, and not before."""
    with (
        writing_whole(path) as scratch,
        pq.ParquetWriter(scratch, schema, compression="zstd") as writer,
    ):
        yield writer


class Ledger:
    """The manifests of a run's folder and the parts that they speak of.

    Parameters
    ----------
    folder : Path
        The run's folder, with `ledger/`, `completed/` and `history/` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        self.parts = folder / "completed"
        self.history = folder / "history"
        self.manifests: dict[str, Manifest] = {}

    def load(self) -> Ledger:
        """Read the manifests that count: their part is whole, and no other replaces them.

        Raises
        ------
        ConfigError
            They are another program version's.
        """
        self.manifests = {}
        lost: list[Manifest] = []
        for path in sorted(self.folder.glob("shard-*.json")):
            manifest = Manifest.parse(path.read_bytes())
            part = self.parts / manifest.part
            # A part that was lost or cut is done again.
            if part.is_file() and part.stat().st_size == manifest.size:
                self.manifests[manifest.shard] = manifest
            else:
                lost.append(manifest)
        for manifest in list(self.manifests.values()):
            if manifest.replaces:
                self.manifests.pop(manifest.replaces, None)
        if lost:
            logger.warning(
                "%s of completed/ %s gone or cut short (%s first): the %d rows are to be done again",
                f"{len(lost)} parts" if len(lost) > 1 else "a part",
                "are" if len(lost) > 1 else "is",
                lost[0].part,
                sum(len(manifest.rows) for manifest in lost),
            )
        return self

    def find(self, shard: str) -> Manifest | None:
        """The manifest of one shard as it stands on disk, if it does."""
        try:
            return Manifest.parse((self.folder / f"{shard}.json").read_bytes())
        except FileNotFoundError:
            return None

    def sweep(self) -> None:
        """Remove parts without a manifest, and manifests that do not count.

        Only the run that holds the lock may call this.
        """
        standing = {manifest.part for manifest in self.manifests.values()}
        for path in self.parts.glob("*.parquet"):
            if path.name not in standing:
                path.unlink()
        for path in self.folder.glob("shard-*.json"):
            if path.stem not in self.manifests:
                path.unlink()

    def parts_of(self, ids: Sequence[str]) -> list[Path]:
        """The parts that hold any of these rows, the newest last."""
        wanted = pa.array(ids, pa.string())
        return [
            self.parts / manifest.part
            for manifest in reversed(self.newest_first())
            if pc.any(pc.is_in(manifest.rows["id"], wanted)).as_py()
        ]

    def newest_first(self) -> list[Manifest]:
        """The manifests; where two hold a row, the one that counts stands first."""
        return [self.manifests[name] for name in sorted(self.manifests, key=_number, reverse=True)]

    def table(self) -> pa.Table:
        """All rows in the order of `newest_first`: `ROWS`, and `shard`, the manifest's place there.

        A row that was done again stands more than once until the old one is cleared away.
        """
        tables = [
            m.rows.append_column("shard", pa.array(np.full(len(m.rows), place, np.int32)))
            for place, m in enumerate(self.newest_first())
        ]
        empty = ROWS.empty_table().append_column("shard", pa.array([], pa.int32()))
        return pa.concat_tables([empty, *tables]).combine_chunks()

    def files(self) -> list[Path]:
        """The parts of the completed dataset; one that no manifest speaks of is no part of it."""
        return sorted(self.parts / manifest.part for manifest in self.manifests.values())

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """The standing entries of some rows by id."""
        table = self.table()
        place = pc.index_in(pa.array(ids, pa.string()), value_set=table["id"].combine_chunks())
        columns = entry_columns(table.take(place.drop_null()))
        rows = (Entry(*row) for row in zip(*columns.values(), strict=True))
        return {row.id: row for row in rows}

    def version(self) -> str:
        """A digest that changes with the completed dataset."""
        parts = [(m.part, m.size, m.run_id) for m in self.newest_first()]
        return digest(json.dumps(parts))[:16]

    def next_number(self) -> int:
        """A shard number above all that stand, and above those that history speaks of."""
        left = (int(path.name.split("-")[1]) for path in self.history.glob("part-*.parquet"))
        return max((*map(_number, self.manifests), *left), default=0) + 1

    def history_of(self, manifest: Manifest) -> Path:
        """Where the generated rows of a part go that leave it."""
        part = manifest.part.removesuffix(".parquet")
        return self.history / f"{part}-{manifest.run_id}.parquet"

    def commit(self, manifest: Manifest) -> None:
        """Make a shard done: its part must stand already."""
        write_whole(self.folder / f"{manifest.shard}.json", manifest.dump())
        self.manifests[manifest.shard] = manifest
        if manifest.replaces:
            self.manifests.pop(manifest.replaces, None)

    def drop(self, shard: str) -> None:
        """Undo a shard of which no row counts any more; `sweep` removes its part."""
        (self.folder / f"{shard}.json").unlink()
        sync_folder(self.folder)
        del self.manifests[shard]


def _number(shard: str) -> int:
    return int(shard.removeprefix("shard-"))


def shard_name(number: int) -> str:
    return f"shard-{number:06d}"


def part_name(number: int) -> str:
    return f"part-{number:06d}.parquet"


def count_outcomes(rows: pa.Table) -> dict[str, int]:
    """Rows of a ledger's table by outcome, all outcomes named."""
    found = pc.value_counts(rows["status"]).to_pylist()
    counts = dict.fromkeys(STATUSES, 0)
    return counts | {item["values"]: item["counts"] for item in found}
