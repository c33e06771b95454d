"""Which files of an export are of which parts of the completed dataset, so that those stay that may.

A part never changes, so that a file of an export is as it would be written anew while the parts that
it is of stand, nobody has said anything else of their rows, and the same rows are above the cuts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.export.tally import Bounds, Tally
from pipeline.ledger.review import Verdict
from pipeline.storage.digests import digest

Stamp = tuple[str, int, int]


def stamp(path: Path) -> Stamp:
    """What a file is known by: name, size and time."""
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


@dataclass
class Group:
    """Files of an export, and the parts of the completed dataset that they are of.

    Attributes
    ----------
    parts : list of Stamp
    said : str
        A digest of what a person said of rows of the parts.
    closed : bool
        Whether the next part found no room in it.
    files : dict of str to Stamp
        By place in the export.
    counts : dict of str to int
        Rows by place in the export.
    """

    parts: list[Stamp] = field(default_factory=list)
    said: str = ""
    closed: bool = False
    files: dict[str, Stamp] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    bounds: Bounds = field(default_factory=Bounds)

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        values = {name: getattr(self, name) for name in ("parts", "said", "closed", "files")}
        bounds = {"kept": self.bounds.kept, "dropped": self.bounds.dropped}
        return values | {"counts": self.counts, "tally": self.tally.dump(), "bounds": bounds}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            [_stamp(each) for each in values["parts"]],
            values["said"],
            values["closed"],
            {place: _stamp(each) for place, each in values["files"].items()},
            dict(values["counts"]),
            Tally.parse(values["tally"]),
            Bounds(**values["bounds"]),
        )

    def stands(
        self,
        folder: Path,
        parts: Mapping[Stamp, Path],
        said: Mapping[Path, str],
        cuts: Mapping[str, float],
    ) -> bool:
        """Whether its files are there, and are what would be written."""
        if not all(part in parts for part in self.parts) or not self.bounds.hold(cuts):
            return False
        if self.said != digest_of(said, (parts[part] for part in self.parts)):
            return False
        paths = {place: folder / place for place in self.files}
        return all(
            path.is_file() and stamp(path) == self.files[place] for place, path in paths.items()
        )


def _stamp(values: Sequence[Any]) -> Stamp:
    name, size, time = values
    return str(name), int(size), int(time)


def digest_of(said: Mapping[Path, str], parts: Iterable[Path]) -> str:
    """What a person said of rows of some parts; "" where nothing was."""
    told = [f"{path.name} {said[path]}" for path in parts if path in said]
    return digest(*told) if told else ""


def said_of(completed: ds.Dataset, verdicts: Mapping[str, Verdict]) -> dict[Path, str]:
    """By part a digest of the verdicts on its rows; parts without any are not in it."""
    if not verdicts:
        return {}
    names = pa.array(verdicts, pa.string())
    found = {}
    for fragment in completed.get_fragments(filter=pc.field("id").isin(names)):
        ids = fragment.to_table(columns=["id"], filter=pc.field("id").isin(names))["id"]
        told = [f"{each} {verdicts[each]!r}" for each in sorted(ids.to_pylist())]
        if told:
            found[Path(fragment.path)] = digest(*told)
    return found


def kept_groups(
    former: Sequence[Group],
    folder: Path,
    parts: Mapping[Stamp, Path],
    said: Mapping[Path, str],
    cuts: Mapping[str, float],
) -> list[Group]:
    """Of the former export's groups those whose files stay.

    One that the next part found room in stays only where there is no next part.
    """
    standing = [group for group in former if group.stands(folder, parts, said, cuts)]
    held = {part for group in standing for part in group.parts}
    if held == parts.keys():
        return standing
    return [group for group in standing if group.closed]


def take_over(path: Path, target: Path) -> None:
    """Have a file stand in another place too, without writing it where that can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copy2(path, target)
