"""An export again after a change: what it writes is what changed, and it reads as one made anew."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.schema import completed_schema
from pipeline.export.export import Exported, export
from pipeline.export.settings import ExportSettings
from pipeline.ledger.review import Verdict
from tests.pipeline.export.completed_rows import EXTRA, completed_row

SCHEMA = completed_schema(False, EXTRA)
# Rows of a part and parts of a file of shards; of twelve rows an export keeps eight.
ROWS, SHARD_ROWS = 12, 24
FORMATS = ("parquet", "webdataset")


class World:
    """A completed dataset of small parts, and its export."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.parts = folder / "completed"
        self.parts.mkdir()
        self.folder = folder / "out"
        self.settings = ExportSettings(shard_rows=SHARD_ROWS, **settings)
        self.verdicts: dict[str, Verdict] = {}

    def part(self, number: int, rows: list[dict[str, Any]] | None = None) -> None:
        """Write a part; its rows follow from its number, unless they are given."""
        rows = rows or [completed_row(number * ROWS + n) for n in range(ROWS)]
        for row in rows:
            if row["completion"]:
                row["completion"].setdefault("attempt", 1)
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        pq.write_table(table, self.parts / f"part-{number:06d}.parquet")

    def export(self, folder: Path | None = None) -> Exported:
        files = sorted(str(path) for path in self.parts.iterdir())
        completed = ds.dataset(files, schema=SCHEMA, format="parquet")
        return export(completed, folder or self.folder, self.settings, "x", self.verdicts)

    def inodes(self) -> dict[str, int]:
        """What the files of shards are, whatever they are called."""
        found = (p for p in self.folder.rglob("*") if p.suffix in (".parquet", ".tar"))
        return {str(path.relative_to(self.folder)): path.stat().st_ino for path in found}

    def read(self, folder: Path | None = None) -> dict[str, Any]:
        """The rows by id, as whoever reads the layout has them."""
        folder = folder or self.folder
        if self.settings.format == "parquet":
            return {row["id"]: repr(row) for row in pq.read_table(folder / "data").to_pylist()}
        rows: dict[str, dict[str, bytes]] = {}
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    key, _, kind = member.name.partition(".")
                    assert kind not in rows.setdefault(key, {})
                    rows[key][kind] = tar.extractfile(member).read()  # type: ignore[union-attr]
        sizes = json.loads((folder / "sizes.json").read_text())
        assert list(sizes) == [f"{n:05d}.tar" for n in range(len(sizes))]
        assert sum(sizes.values()) == len(rows)
        return {json.loads(row["json"])["id"]: row for row in rows.values()}

    def check_against_anew(self, tmp_path: Path) -> None:
        """The export is what one is that is made without it, card and all."""
        anew = tmp_path / "anew"
        made = self.export(anew)
        assert self.read() == self.read(anew)
        cards = [(place / "README.md").read_text() for place in (self.folder, anew)]
        assert cards[0].replace(str(self.folder), "") == cards[1].replace(str(anew), "") or (
            # Another number of files stands in the usage alone.
            made.written != len(self.inodes())
        )


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made = World(tmp_path, format=request.param)
    for number in range(1, 11):
        made.part(number)
    done = made.export()
    # Ten parts of eight rows, three to a file.
    assert (done.rows, done.written, done.taken_over) == (80, 4, 0)
    return made


def test_new_parts_touch_the_last_file_alone(world: World, tmp_path: Path) -> None:
    before = world.inodes()
    world.part(11)
    done = world.export()
    assert (done.rows, done.written, done.taken_over) == (88, 1, 3)
    after = world.inodes()
    assert len(after) == 4
    assert sum(after[name] == inode for name, inode in before.items()) == 3
    world.check_against_anew(tmp_path)


def test_nothing_new_writes_no_file_of_shards(world: World, tmp_path: Path) -> None:
    before = world.inodes()
    done = world.export()
    assert (done.written, done.taken_over) == (0, 4)
    assert world.inodes() == before
    world.check_against_anew(tmp_path)


def test_a_part_that_is_gone_or_another_costs_its_file_and_the_last(
    world: World, tmp_path: Path
) -> None:
    before = world.inodes()
    # As after tidying up: what is left of the second part stands in a new one.
    rows = pq.read_table(world.parts / "part-000002.parquet").to_pylist()[:6]
    (world.parts / "part-000002.parquet").unlink()
    world.part(11, rows)
    done = world.export()
    assert (done.rows, done.taken_over) == (76, 2)
    assert len(set(before.values()) & set(world.inodes().values())) == 2
    world.check_against_anew(tmp_path)


def test_files_that_become_fewer_are_numbered_without_gaps(world: World, tmp_path: Path) -> None:
    for number in range(1, 7):
        (world.parts / f"part-{number:06d}.parquet").unlink()
    done = world.export()
    assert (done.rows, done.written, done.taken_over) == (32, 0, 2)
    world.check_against_anew(tmp_path)


def test_a_least_score_moves_no_file(world: World, tmp_path: Path) -> None:
    world.settings = world.settings.model_copy(update={"min_score": {"text": 0.03}})
    first = world.export()
    # What was kept without a cut and is above it stays; where rows fall out it is written anew.
    assert 0 < first.taken_over < 4
    world.part(11)
    done = world.export()
    assert (done.written, done.taken_over) == (1, 3)
    world.check_against_anew(tmp_path)


def test_a_share_rewrites_the_files_whose_rows_change_sides(world: World, tmp_path: Path) -> None:
    world.settings = world.settings.model_copy(update={"best": {"image": 0.5}})
    world.export()
    # The scores of later parts are higher, so that rows of one file fall below the half.
    world.part(11)
    world.part(12)
    done = world.export()
    assert 0 < done.taken_over < 4
    world.check_against_anew(tmp_path)


def test_a_verdict_rewrites_the_file_of_its_row(world: World, tmp_path: Path) -> None:
    world.verdicts = {"row/0014": Verdict("reject", "text", 1, "c", "r1")}
    done = world.export()
    assert (done.rows, done.written, done.taken_over) == (79, 2, 2)
    assert "row/0014" not in world.read()
    world.check_against_anew(tmp_path)
    world.verdicts = {}
    assert world.export().rows == 80


def test_a_file_that_somebody_changed_or_removed_is_written_anew(
    world: World, tmp_path: Path
) -> None:
    names = sorted(world.inodes())
    (world.folder / names[0]).unlink()
    with (world.folder / names[1]).open("ab") as file:
        file.write(b"more")
    done = world.export()
    assert done.taken_over == 1
    world.check_against_anew(tmp_path)


def test_other_columns_are_another_layout(world: World, tmp_path: Path) -> None:
    world.settings = world.settings.model_copy(update={"columns": ["status", "missing", "label"]})
    done = world.export()
    assert (done.written, done.taken_over) == (4, 0)
    world.check_against_anew(tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_without_a_row_that_is_asked_for_is_none(tmp_path: Path, format: str) -> None:
    world = World(tmp_path, format=format, only="observed")
    for number in range(4):
        lost = [completed_row(6 * n + 4) | {"id": f"{number} {n}"} for n in range(ROWS)]
        world.part(number, lost if number < 3 else None)
    done = world.export()
    assert (done.rows, len(world.inodes())) == (4, 1)
    assert world.export().taken_over == 1
    world.check_against_anew(tmp_path)
