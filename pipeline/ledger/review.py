"""A person's verdicts on generated halves: read from the report's marks, kept in the run's folder.

An accepted half is never generated again; a rejected one is, from the attempt after it on. A verdict
holds for the observed half that it was given for: when that changes, the row is a new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.ledger.ledger import Entry, Ledger
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError, first_error
from pipeline.storage.files import read_json, write_whole

REVIEW_VERSION = 1
FILE = "review.json"
SHOWN = 5

# Why a mark does not count, in the words that a person reads.
UNKNOWN = "no row of this run has the id"
NOT_GENERATED = "the row has no generated half"
STALE = "the row was generated again since the report was written"

# The fault of a candidate that says again what was rejected.
REFUSED = "rejected in a review"


class Mark(BaseModel):
    """One row's mark, as the report exports it, with what tells the half that was looked at."""

    model_config = ConfigDict(extra="forbid")

    id: str
    mark: Literal["accept", "reject"]
    missing: Literal["image", "text"]
    attempt: int = Field(ge=1)
    seed: int
    run_id: str


class Marks(BaseModel):
    """The file that the report's button exports."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["rag4dmc-marks"]
    version: Literal[1]
    run: str | None
    run_id: str | None
    marks: list[Mark]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person said of a row: of which attempt, and for which observed content.

    `refused` are digests of all halves that were rejected for it.
    """

    mark: Literal["accept", "reject"]
    missing: str
    attempt: int
    content: str
    run_id: str
    refused: Sequence[str] = ()


@dataclass(frozen=True)
class Reviewed:
    """What became of a file of marks.

    Attributes
    ----------
    accepted, rejected : list of str
        Ids whose verdict is new or another than before.
    known : int
        Marks that said what was known already.
    ignored : dict of str to list of str
        Ids whose mark does not count, by why.
    """

    accepted: list[str]
    rejected: list[str]
    known: int
    ignored: dict[str, list[str]]

    def told(self) -> str:
        """The marks that do not count, by why, each with the first few ids."""
        return "; ".join(
            f"{len(ids)} ignored, {why} ({', '.join(ids[:SHOWN])}{', …' if ids[SHOWN:] else ''})"
            for why, ids in self.ignored.items()
        )


class Review:
    """The verdicts of a run.

    Parameters
    ----------
    folder : Path
        The run's folder, with `review.json` in it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.verdicts: dict[str, Verdict] = {}

    def load(self) -> Review:
        """Read the verdicts; none where nothing was reviewed yet."""
        found = read_json(self._path)
        if found is None:
            return self
        if found.get("version") != REVIEW_VERSION:
            raise ConfigError(f"{self._path}: written by another version of this program")
        self.verdicts = {row: Verdict(**values) for row, values in found["rows"].items()}
        return self

    def save(self) -> None:
        rows = {row: asdict(verdict) for row, verdict in sorted(self.verdicts.items())}
        text = json.dumps({"version": REVIEW_VERSION, "rows": rows}, ensure_ascii=False, indent=1)
        write_whole(self._path, text)

    def standing(self, entries: Mapping[str, Entry]) -> dict[str, Verdict]:
        """The verdicts by id whose observed half is still in the ledger as it was."""
        return {
            row: verdict
            for row, verdict in self.verdicts.items()
            if row in entries and entries[row].content == verdict.content
        }

    def add(
        self, marks: Marks, standing: Mapping[str, Entry], made: Mapping[str, Mapping[str, Any]]
    ) -> Reviewed:
        """Take over marks on halves that still stand; what does not count is told, not kept.

        Parameters
        ----------
        marks
        standing
            The ledger's newest entry by id.
        made
            The marked rows as they stand (`made_halves`).
        """
        accepted: list[str] = []
        rejected: list[str] = []
        ignored: dict[str, list[str]] = {}
        known = 0
        for mark in marks.marks:
            fault = _fault(mark, standing.get(mark.id), made.get(mark.id))
            if fault is not None:
                ignored.setdefault(fault, []).append(mark.id)
                continue
            content, before = standing[mark.id].content, self.verdicts.get(mark.id)
            refused = before.refused if before is not None and before.content == content else ()
            own = made[mark.id]["digest"]
            refused = [one for one in refused if one != own]
            if mark.mark == "reject":
                refused.append(own)
            verdict = Verdict(mark.mark, mark.missing, mark.attempt, content, mark.run_id, refused)
            if before is not None and _same(before, verdict):
                known += 1
                continue
            self.verdicts[mark.id] = verdict
            (accepted if mark.mark == "accept" else rejected).append(mark.id)
        return Reviewed(accepted, rejected, known, ignored)


def state(verdict: Verdict | None, row: Mapping[str, Any]) -> str | None:
    """What was said of a completed row: "accepted", "rejected" (it stands until the next run), or
    "redone" (generated again since); None where nothing was."""
    if verdict is None or row["status"] != "completed":
        return None
    made = row["completion"]
    if verdict.mark == "accept":
        # A row that left the input and came back has a half that nobody looked at.
        return "accepted" if made["run_id"] == verdict.run_id else None
    return "rejected" if made["attempt"] <= verdict.attempt else "redone"


def read_marks(path: Path, run: str) -> Marks:
    """Read a file of marks that the report of `run` exported.

    Raises
    ------
    ConfigError
        Not such a file, marks of another run, or an id that is marked twice.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file of marks") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: can't be read as JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != "rag4dmc-marks":
        raise ConfigError(f"{path}: not marks that a report exported (format rag4dmc-marks)")
    try:
        marks = Marks.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_error(error)}") from None
    if marks.run != run:
        raise ConfigError(f"{path}: the marks are of run {marks.run!r}; this config's is {run!r}")
    if not marks.marks:
        raise ConfigError(f"{path}: holds no mark")
    seen: set[str] = set()
    for mark in marks.marks:
        if mark.id in seen:
            raise ConfigError(f"{path}: row {mark.id!r} is marked twice")
        seen.add(mark.id)
    return marks


def take_marks(path: Path, run: str, review: Review, ledger: Ledger) -> Reviewed:
    """Keep the marks that the report of a run exported.

    Raises
    ------
    ConfigError
        Not such a file (`read_marks`), or none of its marks counts.
    """
    read = read_marks(path, run)
    ids = [mark.id for mark in read.marks]
    result = review.add(read, ledger.entries(ids), made_halves(ledger.parts_of(ids), ids))
    if result.accepted or result.rejected:
        review.save()
    elif not result.known:
        raise ConfigError(f"{path}: no mark counts: {result.told()}")
    return result


def half_digest(text: str | None, image: bytes | None) -> str:
    """A digest of a generated half: of a text whatever its case and spaces, or of encoded bytes.

    In another format the same picture has another digest, for no lossy one gives the same pixels. What
    draws does not make it again from other seeds; what copies might.
    """
    return digest(" ".join(text.casefold().split()) if text is not None else image or b"")


def made_halves(parts: Sequence[Path], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What tells the generated halves of some rows apart, by id.

    Parameters
    ----------
    parts
        The parts of the completed dataset that hold the rows.
    ids
    """
    found = {}
    names = ["id", "image", "text", "status", "missing", "completion"]
    for part in parts:
        table = pq.read_table(part, columns=names, filters=pc.field("id").isin(list(ids)))
        for row in table.to_pylist():
            told = {name: row[name] for name in ("status", "missing")}
            made = row["completion"] or {}
            told |= {name: made.get(name) for name in ("attempt", "seed", "run_id")}
            text = row["text"][0] if isinstance(row["text"], list) else row["text"]
            image = (row["image"] or {}).get("bytes")
            half = (text, None) if row["missing"] == "text" else (None, image)
            found[row["id"]] = told | {"digest": half_digest(*half)}
    return found


def _fault(mark: Mark, standing: Entry | None, made: Mapping[str, Any] | None) -> str | None:
    if standing is None or made is None:
        return UNKNOWN
    if made["status"] != "completed" or made["missing"] != mark.missing:
        return NOT_GENERATED
    if any(made[name] != getattr(mark, name) for name in ("attempt", "seed", "run_id")):
        return STALE
    return None


def _same(one: Verdict, other: Verdict) -> bool:
    names = ("mark", "attempt", "content", "run_id")
    return all(getattr(one, name) == getattr(other, name) for name in names)
