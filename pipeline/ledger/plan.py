"""What a run has to do: the pending rows, cut to shards of one kind each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import MODALITIES, Modality
from pipeline.ledger.comparison import PASSING, REASONS, STANDS, Comparison, Settings
from pipeline.ledger.ledger import DIGESTS, Entry, Ledger, shard_name
from pipeline.ledger.review import Verdict
from pipeline.storage.digests import in_hex

# What a shard needs to know of its rows.
PLANNED = ["id", "content", "extra", "missing", "image_reason", "text_reason", "file", "position"]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The rows of a shard to be done.

    `rows` are their places (number of the file, position); `reasons` say why a half is missing;
    `missing` is "image" or "text" where rows need a generator, None where they only pass through;
    `settings` are what the rows depend on, by section; `refused` are digests of the halves that a
    person rejected, by id; `learned` is what rows are told by, as JSON holds it
    (`pipeline.completion.learned`); `checks`: what lacks a half is complete, and is compared with it.
    """

    number: int
    missing: Modality | None
    rows: tuple[tuple[int, int], ...]
    entries: tuple[Entry, ...]
    reasons: tuple[str | None, ...]
    run_id: str
    settings: Mapping[str, str]
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    learned: Mapping[str, Any] | None = None
    checks: bool = False

    @property
    def name(self) -> str:
        """What its task and its file are called; that of no other shard of the run."""
        own = shard_name(self.number)
        return f"check-{self.missing}-{own}" if self.checks else own

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

    def teach(self, half: Modality, learned: Mapping[str, Any] | None) -> None:
        """Have the rows that lack a half completed and judged by what the check has taught."""
        self.shards = [
            replace(shard, learned=learned) if shard.missing == half else shard
            for shard in self.shards
        ]

    def standing(self, lacking: Mapping[str, int]) -> dict[Modality, int]:
        """By half, rows that stand once the plan is done, of so many that lack it."""
        done = {half: lacking[half] - self.pending.get(half, 0) for half in MODALITIES}
        for shard in self.shards:
            if shard.missing is not None:
                done[shard.missing] += len(shard.rows)
        return done


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
        own = settings.get(kind, settings[PASSING])
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
    digests = {name: in_hex(rows[name]) for name in DIGESTS}
    for row_id, content, extra, missing, first_attempt, image, text in zip(
        *(digests.get(name) or rows[name].to_pylist() for name in names), strict=True
    ):
        entries.append(Entry(row_id, content, extra, "", missing, first_attempt))
        both = f"image: {image}; text: {text}"
        reasons.append({"image": image, "text": text, "both": both}.get(missing))
    places = zip(rows["file"].to_pylist(), rows["position"].to_pylist(), strict=True)
    half = None if kind == "none" else cast(Modality, kind)
    refused = {
        e.id: verdicts[e.id].refused
        for e in entries
        if e.id in verdicts and verdicts[e.id].content == e.content
    }
    return ShardPlan(
        number, half, tuple(places), tuple(entries), tuple(reasons), run_id, settings, refused
    )
