"""What a run has to do: the input's rows compared with the ledger, the pending ones cut to shards.

A row stands when the ledger holds it with the same observed content, done under the same settings.
Everything here works on columns, so that a million rows with nothing new take seconds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import MODALITIES, Modality
from pipeline.ledger import Entry, Ledger
from pipeline.review import Verdict

# What a row depends on that passes through as it is.
PASSING = "passing"
# More attempts give another chance to rows that were rejected, and change no other row.
ATTEMPTS = "attempts"

# What a shard needs to know of its rows.
PLANNED = ["id", "content", "extra", "missing", "image_reason", "text_reason", "file", "position"]

Settings = Mapping[str, Mapping[str, str]]

# States of an input row.
STANDS, NEW, CONTENT, SETTINGS, RETRY, REDO = range(6)
REASONS = {
    NEW: "new",
    CONTENT: "observed half changed",
    SETTINGS: "settings changed",
    RETRY: "failed before",
    REDO: "rejected in a review",
}


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The rows of a shard to be done.

    `rows` are their places (number of the file, position); `reasons` say why a half is missing;
    `missing` is "image" or "text" where rows need a generator, None where they only pass through;
    `settings` are what the rows depend on, by section; `refused` are digests of the halves that a
    person rejected, by id.
    """

    number: int
    missing: Modality | None
    rows: tuple[tuple[int, int], ...]
    entries: tuple[Entry, ...]
    reasons: tuple[str | None, ...]
    run_id: str
    settings: Mapping[str, str]
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def dump(self) -> str:
        """JSON, for a task in another process."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values | {"entries": [astuple(entry) for entry in self.entries]})

    @classmethod
    def parse(cls, text: str) -> ShardPlan:
        values = json.loads(text)
        values["entries"] = tuple(Entry(*entry) for entry in values["entries"])
        values["rows"] = tuple((file, position) for file, position in values["rows"])
        values["reasons"] = tuple(values["reasons"])
        return cls(**values)


@dataclass(frozen=True)
class Comparison:
    """The rows of the input beside those of the ledger.

    Attributes
    ----------
    states : int8 array [rows]
        `STANDS`, or why the row is to be done.
    refreshed : bool array [rows]
        Rows that stand, but with other pass-through columns: those are taken over, nothing else.
    sections : dict
        Rows by section of the settings that changed; a row counts once for each.
    first_attempts : int32 array [rows]
        The attempt that a row begins with, if it is done.
    held : int
        Rows in the ledger.
    deleted : int
        Those of them that the input has no more.
    """

    states: np.ndarray
    refreshed: np.ndarray
    sections: dict[str, int]
    first_attempts: np.ndarray
    held: int
    deleted: int


@dataclass
class Plan:
    """What a run would do.

    Attributes
    ----------
    shards : list of ShardPlan
    pending : dict
        Rows to be done by what is missing: "image", "text", and "none" for those that pass through.
    done : int
        Rows that stand already.
    held_back : int
        Pending rows that `limit` leaves for another run.
    deleted, held : int
        Rows of the completed dataset that are no longer in the input, and all of its rows.
    why : dict
        Pending rows by the reason (`REASONS`), and "other columns changed" for those that only
        take those over.
    sections : dict
        Rows by section of the config that changed; a row counts once for each.
    """

    shards: list[ShardPlan] = field(default_factory=list)
    pending: dict[str, int] = field(default_factory=dict)
    done: int = 0
    held_back: int = 0
    deleted: int = 0
    held: int = 0
    why: dict[str, int] = field(default_factory=dict)
    sections: dict[str, int] = field(default_factory=dict)


def compare(
    rows: pa.Table,
    ledger: Ledger,
    settings: Settings,
    verdicts: Mapping[str, Verdict] | None = None,
    retry_failed: bool = False,
) -> Comparison:
    """Say of every row of the input whether it stands.

    Parameters
    ----------
    rows
        Of `pipeline.catalog.Catalog`.
    ledger
    settings
        What rows depend on now: "image", "text" (the missing half) or `PASSING` to digests by
        section.
    verdicts
        A person's, by id.
    retry_failed
        Rows that ended in an error are to be done again.
    """
    held = ledger.table()
    ids = rows["id"].combine_chunks()
    place = pc.index_in(ids, value_set=held["id"].combine_chunks())
    found = np.asarray(place.is_valid())
    states = np.full(len(rows), NEW, np.int8)
    at = held.take(place.drop_null())
    known = rows.filter(pa.array(found))
    same = np.asarray(pc.equal(known["content"], at["content"]))
    changed, sections = _changed(ledger, settings, at, same)
    state = np.where(same, STANDS, CONTENT).astype(np.int8)
    state[same & changed] = SETTINGS
    if retry_failed:
        state[(state == STANDS) & np.asarray(pc.equal(at["status"], "failed"))] = RETRY
    states[found] = state
    first_attempts = _heed(verdicts or {}, rows, held, states)
    other = np.asarray(
        pc.not_equal(pc.fill_null(known["extra"], ""), pc.fill_null(at["extra"], ""))
    )
    refreshed = np.zeros(len(rows), bool)
    refreshed[found] = (states[found] == STANDS) & other
    gone = pc.index_in(held["id"].combine_chunks(), value_set=ids).is_null()
    deleted = pc.count_distinct(held["id"].filter(gone)).as_py()
    return Comparison(
        states,
        refreshed,
        sections,
        first_attempts,
        held=pc.count_distinct(held["id"]).as_py(),
        deleted=int(deleted),
    )


def _heed(
    verdicts: Mapping[str, Verdict], rows: pa.Table, held: pa.Table, states: np.ndarray
) -> np.ndarray:
    """Leave accepted rows as they are and have rejected ones done; the first attempt of each row."""
    first_attempts = np.ones(len(rows), np.int32)
    if not verdicts:
        return first_attempts
    ids = pa.array(verdicts, pa.string())
    places = pc.index_in(ids, value_set=rows["id"].combine_chunks()).to_pylist()
    standing = pc.index_in(ids, value_set=held["id"].combine_chunks()).to_pylist()
    for verdict, row, at in zip(verdicts.values(), places, standing, strict=True):
        if row is None or rows["content"][row].as_py() != verdict.content:
            continue
        entry = None if at is None else held.slice(at, 1).to_pylist()[0]
        stands = entry is not None and entry["content"] == verdict.content
        if verdict.mark == "reject":
            first_attempts[row] = verdict.attempt + 1
            if entry and stands and entry["first_attempt"] <= verdict.attempt:
                states[row] = REDO
        elif entry and stands and entry["status"] == "completed":
            states[row] = STANDS
    return first_attempts


def _changed(
    ledger: Ledger, settings: Settings, at: pa.Table, same: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Which standing rows were done under other settings, and how many rows by section."""
    shard = at["shard"].to_numpy()
    rejected = np.asarray(pc.equal(at["status"], "rejected"))
    manifests = ledger.newest_first()
    every = np.zeros(len(manifests), bool)
    only_rejected = np.zeros(len(manifests), bool)
    names: list[set[str]] = []
    for number, manifest in enumerate(manifests):
        kind = manifest.rows["missing"][0].as_py()
        new, old = settings[kind if kind in MODALITIES else PASSING], manifest.settings
        other = {name for name in new.keys() | old.keys() if new.get(name) != old.get(name)}
        if ATTEMPTS in other and int(new[ATTEMPTS]) > int(old[ATTEMPTS]):
            other.remove(ATTEMPTS)
            only_rejected[number] = True
        every[number] = bool(other)
        names.append(other)
    changed = every[shard] | (only_rejected[shard] & rejected)
    counts: Counter[str] = Counter()
    for number, rows in enumerate(np.bincount(shard[same & changed], minlength=len(manifests))):
        if rows:
            counts.update(dict.fromkeys(names[number] or {ATTEMPTS}, int(rows)))
    return changed, dict(counts.most_common())


def make_plan(
    rows: pa.Table,
    ledger: Ledger,
    compared: Comparison,
    settings: Settings,
    shard_size: int,
    run_id: str,
    limit: int | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Plan:
    """Cut the pending rows to shards of one kind each, at most `limit` incomplete rows of them."""
    states = compared.states
    why = {name: int((states == state).sum()) for state, name in REASONS.items()}
    why["other columns changed"] = int(compared.refreshed.sum())
    plan = Plan(
        done=int((states == STANDS).sum()),
        deleted=compared.deleted,
        held=compared.held,
        why={name: count for name, count in why.items() if count},
        sections=compared.sections,
    )
    missing = rows["missing"].combine_chunks()
    kinds = {
        "none": ~np.asarray(pc.is_in(missing, pa.array(MODALITIES))),
        "text": np.asarray(pc.equal(missing, "text").fill_null(False)),
        "image": np.asarray(pc.equal(missing, "image").fill_null(False)),
    }
    room = limit
    number = ledger.next_number()
    for kind, of_kind in kinds.items():
        waiting = np.flatnonzero(of_kind & (states != STANDS))
        plan.pending[kind] = len(waiting)
        if kind != "none" and room is not None:
            plan.held_back += max(0, len(waiting) - room)
            waiting = waiting[:room]
            room -= len(waiting)
        own = settings[kind if kind in settings else PASSING]
        chosen = rows.select(PLANNED).take(pa.array(waiting)).combine_chunks()
        first_attempts = pa.array(compared.first_attempts[waiting])
        chosen = chosen.append_column("first_attempt", first_attempts)
        for start in range(0, len(chosen), shard_size):
            part = chosen.slice(start, shard_size)
            plan.shards.append(_shard(number, kind, part, run_id, own, verdicts or {}))
            number += 1
    return plan


def _shard(
    number: int,
    kind: str,
    rows: pa.Table,
    run_id: str,
    settings: Mapping[str, str],
    verdicts: Mapping[str, Verdict],
) -> ShardPlan:
    names = ("id", "content", "extra", "missing", "first_attempt", "image_reason", "text_reason")
    entries, reasons = [], []
    for row_id, content, extra, missing, first_attempt, image, text in zip(
        *(rows[name].to_pylist() for name in names), strict=True
    ):
        entries.append(Entry(row_id, content, extra, "", missing, first_attempt))
        both = f"image: {image}; text: {text}"
        reasons.append({"image": image, "text": text, "both": both}.get(missing))
    places = zip(rows["file"].to_pylist(), rows["position"].to_pylist(), strict=True)
    half = None if kind == "none" else cast(Modality, kind)
    refused = {e.id: verdicts[e.id].refused for e in entries if e.first_attempt > 1}
    return ShardPlan(
        number, half, tuple(places), tuple(entries), tuple(reasons), run_id, settings, refused
    )
