"""The ledger: which rows are done, in which part of the completed dataset, under which key.

A shard is done when its manifest stands; the manifest is written, whole, after its data. The
manifests are the only truth: a part without one is debris of a run that was cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LEDGER_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished row: its key, the digest of its observed content, and what became of it."""

    id: str
    key: str
    content: str
    status: str
    missing: str | None


@dataclass
class Manifest:
    """A finished shard.

    `replaces` names shards whose rows live on in this one; they are gone as soon as it stands.
    """

    shard: str
    part: str
    bytes: int
    run_id: str
    kb_version: str | None
    entries: list[Entry]
    replaces: list[str] = field(default_factory=list)

    def dump(self) -> str:
        values = asdict(self)
        values["version"] = LEDGER_VERSION
        values["entries"] = [list(asdict(entry).values()) for entry in self.entries]
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def parse(cls, text: str) -> Manifest:
        values = json.loads(text)
        if values.pop("version") != LEDGER_VERSION:
            raise ValueError("the ledger was written by another version of this program")
        values["entries"] = [Entry(*entry) for entry in values["entries"]]
        return cls(**values)


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file that is either there whole or not at all: temporary, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename within a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Ledger:
    """The manifests of a run's folder and the parts that they speak of.

    Parameters
    ----------
    folder : Path
        The run's folder, with `ledger/` and `completed/` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        self.parts = folder / "completed"
        self.manifests: dict[str, Manifest] = {}

    def load(self) -> Ledger:
        """Read the manifests, and clear away what a run that was cut off left behind."""
        self.manifests = {}
        for path in sorted(self.folder.glob("shard-*.json")):
            manifest = Manifest.parse(path.read_text(encoding="utf-8"))
            part = self.parts / manifest.part
            # A part that was lost or cut is done again.
            if part.is_file() and part.stat().st_size == manifest.bytes:
                self.manifests[manifest.shard] = manifest
        for manifest in list(self.manifests.values()):
            for name in manifest.replaces:
                self.manifests.pop(name, None)
        return self

    def sweep(self) -> None:
        """Remove parts without a manifest, replaced manifests and temporary files.

        Only the run that holds the lock may call this.
        """
        standing = {manifest.part for manifest in self.manifests.values()}
        for path in [*self.parts.glob("*.parquet"), *self.parts.glob(".*.tmp")]:
            if path.name not in standing:
                path.unlink()
        for path in [*self.folder.glob("shard-*.json"), *self.folder.glob(".*.tmp")]:
            if path.stem not in self.manifests:
                path.unlink()

    def latest(self) -> dict[str, tuple[str, Entry]]:
        """Id -> (shard, entry) of the newest manifest that holds the row."""
        return {
            entry.id: (name, entry)
            for name, manifest in sorted(self.manifests.items())
            for entry in manifest.entries
        }

    def next_number(self) -> int:
        """A shard number above all that stand."""
        return max((int(name.removeprefix("shard-")) for name in self.manifests), default=0) + 1

    def commit(self, manifest: Manifest) -> None:
        """Make a shard done: its part must stand already."""
        write_whole(self.folder / f"{manifest.shard}.json", manifest.dump())
        self.manifests[manifest.shard] = manifest
        for name in manifest.replaces:
            self.manifests.pop(name, None)


def shard_name(number: int) -> str:
    return f"shard-{number:06d}"


def part_name(number: int) -> str:
    return f"part-{number:06d}.parquet"


def count_outcomes(entries: Iterable[Entry]) -> dict[str, int]:
    """Rows by outcome, all outcomes named."""
    counts = dict.fromkeys(("observed", "completed", "rejected", "failed"), 0)
    for entry in entries:
        counts[entry.status] += 1
    return counts


def read_json(path: Path) -> Mapping[str, Any] | None:
    """A JSON file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
