"""Exports: the completed dataset in the layout that a consumer reads, swapped in whole.

Rows that were rejected or failed lack a half and are never exported; the dataset card says how many
there are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from kb.storage import replacing
from pipeline.dataset.schema import SCHEMA_VERSION
from pipeline.export.card import Tally, card
from pipeline.export.cutoff import cutoffs, scores
from pipeline.export.formats import FORMATS
from pipeline.export.settings import ExportSettings
from pipeline.ledger.review import Verdict
from pipeline.storage.errors import ConfigError
from pipeline.storage.versions import MARK

logger = logging.getLogger(__name__)

# Says that a folder is an export of ours, which the next one may replace.

HALVES = ("id", "image", "text")


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
        Rows that are not in it, by why: "rejected", "failed", "below the score",
        "rejected in review", "not asked for".
    """

    folder: Path
    format: str
    rows: int
    left_out: dict[str, int]


def export(
    completed: ds.Dataset,
    folder: Path,
    settings: ExportSettings,
    name: str = "dataset",
    verdicts: Mapping[str, Verdict] | None = None,
    advance: Callable[[int], None] | None = None,
    owner: str = "",
) -> Exported:
    """Write the completed dataset in a consumer's layout, with a dataset card beside it.

    It is written to a folder beside and renamed when whole: at any moment a reader finds the
    former export or the new one.

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

    Raises
    ------
    ConfigError
        If `folder` holds something else, a column is unknown, or no row is left to export.
    """
    folder = Path(folder).absolute()
    _check_folder(folder)
    columns = _columns(completed.schema, settings.columns)
    rows = scores(completed) if settings.best else None
    tally = Tally(verdicts, cutoffs(rows, settings.min_score, settings.best))
    with replacing(folder, owner) as scratch:
        writer = FORMATS[settings.format](scratch, folder, settings, completed.schema, columns)
        with writer:
            for batch in _batches(completed):
                kept = tally.count(batch, settings.only)
                if kept.num_rows:
                    writer.add(kept)
                if advance:
                    advance(batch.num_rows)
        if not tally.rows:
            said = ", ".join(f"{count} {why}" for why, count in tally.left_out.items())
            raise ConfigError(f"export: no row is left to export ({said or 'no rows at all'})")
        text = card(name, settings, tally, writer.usage(), writer.keys)
        (scratch / "README.md").write_text(text, encoding="utf-8")
        mark = {
            "schema_version": SCHEMA_VERSION,
            "settings": settings.model_dump(mode="json"),
            "rows": tally.rows,
            "left_out": dict(tally.left_out),
        }
        (scratch / MARK).write_text(json.dumps(mark, indent=2), encoding="utf-8")
    logger.info("exported %d rows as %s to %s", tally.rows, settings.format, folder)
    return Exported(folder, settings.format, tally.rows, dict(tally.left_out))


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


def _batches(completed: ds.Dataset) -> Iterator[pa.RecordBatch]:
    # Few row groups ahead: they hold images.
    scanner = completed.scanner(batch_size=100, batch_readahead=2, fragment_readahead=1)
    for batch in scanner.to_batches():
        if batch.num_rows:
            order = [name for name in completed.schema.names if name in batch.schema.names]
            yield batch.select(order)
