"""Exports: the completed dataset in the layout that a consumer reads, swapped in whole.

Rows that were rejected or failed lack a half and are never exported; the dataset card says how many
there are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from kb.storage import replacing
from pipeline.dataset.schema import SCHEMA_VERSION
from pipeline.export.card import card
from pipeline.export.cutoff import cutoffs, scores
from pipeline.export.formats import FORMATS, ShardWriter
from pipeline.export.settings import ExportSettings
from pipeline.export.tally import Tally
from pipeline.export.writing import Writing
from pipeline.ledger.review import Verdict
from pipeline.storage.errors import ConfigError
from pipeline.storage.versions import MARK

logger = logging.getLogger(__name__)

# Says that a folder is an export of ours, which the next one may replace.

HALVES = ("id", "image", "text")


class NothingToExport(ConfigError):
    """No row of the completed dataset is asked for and good enough."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that stands.

    Attributes
    ----------
    folder : Path
    format : str
    rows : int
        Rows exported.
    left_out : dict
        Rows that are not in it, by why: "rejected", "failed", "below the score", "below the
        confidence", "rejected in review", "not asked for".
    written, taken_over : int
        Files of shards that were written, and that stayed as they were.
    """

    folder: Path
    format: str
    rows: int
    left_out: dict[str, int]
    written: int = 0
    taken_over: int = 0


def export(
    completed: ds.Dataset,
    folder: Path,
    settings: ExportSettings,
    name: str = "dataset",
    verdicts: Mapping[str, Verdict] | None = None,
    advance: Callable[[int], None] | None = None,
    owner: str = "",
    waiting: int = 0,
    check: Mapping[str, Mapping[str, Any]] | None = None,
) -> Exported:
    """Write the completed dataset in a consumer's layout, with a dataset card beside it.

    It is written to a folder beside and renamed when whole: at any moment a reader finds the
    former export or the new one. Files of shards (Parquet, WebDataset) that would be the same as
    they stand are taken over as they are.

    Parameters
    ----------
    completed
        The completed dataset, of `pipeline.dataset.schema.completed_schema`.
    folder
        Where the export goes. What stands there is replaced if it is an export.
    settings
        Layout and filters.
    name
        The dataset's name, for the card.
    verdicts
        A person's verdicts by id; a half that was rejected is not exported.
    advance
        Called with the number of rows looked at after each batch.
    owner
        Who writes, where another may write to the same folder; see `kb.storage.replacing`.
    waiting
        Rows of the input that are still to be done, for the card.
    check
        What the run's check found, by half, for the card.

    Raises
    ------
    ConfigError
        If `folder` holds something else, or a column is unknown.
    NothingToExport
        No row is left to export; what stood there stays.
    """
    folder = Path(folder).absolute()
    _check_folder(folder)
    columns = _columns(completed.schema, settings.columns)
    rows = scores(completed) if settings.best else None
    cuts = cutoffs(rows, settings.min_score, settings.best)
    work = Writing(completed, folder, settings, columns, verdicts or {}, cuts, advance)
    with replacing(folder, owner) as scratch:
        writer = FORMATS[settings.format](scratch, folder, settings, completed.schema, columns)
        with writer:
            if isinstance(writer, ShardWriter):
                groups = work.in_shards(writer, scratch)
            else:
                groups = work.in_one(writer)
        tally = Tally()
        for group in groups:
            tally.add(group.tally)
        if not tally.rows:
            said = ", ".join(f"{count} {why}" for why, count in tally.left_out.items())
            raise NothingToExport(f"export: no row is left to export ({said or 'no rows at all'})")
        usage = writer.usage()
        text = card(name, settings, tally, usage, writer.keys, writer.tells, waiting, check)
        (scratch / "README.md").write_text(text, encoding="utf-8")
        mark = {
            "schema_version": SCHEMA_VERSION,
            "settings": settings.model_dump(mode="json"),
            "rows": tally.rows,
            "left_out": dict(tally.left_out),
            "layout": work.layout,
            "groups": [group.dump() for group in groups if group.parts],
        }
        (scratch / MARK).write_text(json.dumps(mark), encoding="utf-8")
    logger.info("exported %d rows as %s to %s", tally.rows, settings.format, folder)
    return Exported(
        folder, settings.format, tally.rows, dict(tally.left_out), work.written, work.taken_over
    )


def is_export(folder: Path) -> bool:
    """Whether an export of ours stands in a folder."""
    return (folder / MARK).is_file()


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise ConfigError(f"export: {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ConfigError(
            f"export: {folder} holds something that is not an export; name another folder"
        )


def _columns(schema: pa.Schema, asked: Sequence[str] | None) -> list[str] | None:
    if asked is None:
        return None
    unknown = [column for column in asked if column not in schema.names]
    if unknown:
        raise ConfigError(
            f"export.columns: there is no column {unknown[0]!r}; there are {', '.join(schema.names)}"
        )
    return [name for name in schema.names if name in asked and name not in HALVES]
