"""The rows of the input beside those of the ledger: which stand, and why the others are to be done.

A row stands when the ledger holds it with the same observed content, done under the same settings.
Everything here works on columns, so that a million rows with nothing new take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.review import Verdict
from pipeline.storage.digests import NO_DIGEST
from pipeline.storage.errors import RunFailed

# What a row depends on that passes through as it is.
PASSING = "passing"
# More attempts give another chance to rows that were rejected, and change no other row; fewer change
# none.
ATTEMPTS = "attempts"

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

    def check_deleted(self, share: float) -> None:
        """Refuse an input that lost more than a share of the rows held.

        Raises
        ------
        RunFailed
            As a half-mounted disk would look.
        """
        if self.deleted > share * self.held:
            raise RunFailed(
                f"{self.deleted} of {self.held} rows vanished from the input, more than"
                f" run.max_deleted_share {share:g} allows; if that is meant, raise it for this run"
            )


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
        Of `pipeline.dataset.catalog.Catalog`.
    ledger
    settings
        What rows depend on now: "image", "text" (the missing half, where it has a generator) or
        `PASSING` to digests by section.
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
    first_attempts = _heed(verdicts or {}, rows, held, ledger, states)
    other = np.asarray(
        pc.not_equal(pc.fill_null(known["extra"], NO_DIGEST), pc.fill_null(at["extra"], NO_DIGEST))
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
    verdicts: Mapping[str, Verdict],
    rows: pa.Table,
    held: pa.Table,
    ledger: Ledger,
    states: np.ndarray,
) -> np.ndarray:
    """Leave accepted rows as they are and have rejected ones done; the first attempt of each row."""
    first_attempts = np.ones(len(rows), np.int32)
    if not verdicts:
        return first_attempts
    runs = [manifest.run_id for manifest in ledger.newest_first()]
    ids = pa.array(verdicts, pa.string())
    places = pc.index_in(ids, value_set=rows["id"].combine_chunks()).to_pylist()
    standing = pc.index_in(ids, value_set=held["id"].combine_chunks()).to_pylist()
    for verdict, row, at in zip(verdicts.values(), places, standing, strict=True):
        if row is None or rows["content"][row].as_py().hex() != verdict.content:
            continue
        entry = None if at is None else held.slice(at, 1).to_pylist()[0]
        stands = entry is not None and entry["content"].hex() == verdict.content
        if verdict.mark == "reject":
            first_attempts[row] = verdict.attempt + 1
            if entry and stands and entry["first_attempt"] <= verdict.attempt:
                states[row] = REDO
        # Of a row that left and came back another half stands than the one that was accepted.
        elif entry and stands and runs[entry["shard"]] == verdict.run_id:
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
        new, old = settings.get(kind, settings[PASSING]), manifest.settings
        # What was made stays when its generator is taken out of the config.
        compared = new.keys() | (old.keys() if kind in settings else set())
        other = {name for name in compared if new.get(name) != old.get(name)}
        if ATTEMPTS in new and ATTEMPTS in old:
            other.discard(ATTEMPTS)
            only_rejected[number] = int(new[ATTEMPTS]) > int(old[ATTEMPTS])
        every[number] = bool(other)
        names.append(other)
    changed = every[shard] | (only_rejected[shard] & rejected)
    counts: Counter[str] = Counter()
    for number, rows in enumerate(np.bincount(shard[same & changed], minlength=len(manifests))):
        if rows:
            counts.update(dict.fromkeys(names[number] or {ATTEMPTS}, int(rows)))
    return changed, dict(counts.most_common())
