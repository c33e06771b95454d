"""What an export keeps of the completed dataset, and the counts that its card tells."""

from __future__ import annotations

import base64
import math
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.export.cutoff import Half, below
from pipeline.ledger.review import Verdict, state

HALVES = ("image", "text")
COUNTED = ("left_out", "missing", "made", "grounded", "sources", "formats")
# What deciding over a row needs of it.
JUDGED_BY = ("id", "status", "missing", "completion")


class Tally:
    """Counts of what is exported and of what is left out; they add up.

    Attributes
    ----------
    rows : int
        Rows exported.
    left_out : Counter
        Rows that are not, by why.
    missing : Counter
        Exported rows by the half that was missing: "image", "text", or "" for observed rows.
    made : Counter
        Halves that were missing by (half, generator, model, revision).
    grounded : Counter
        Exported rows, by the half that was missing, that pairs were shown or copied for.
    sources : Counter
        How often pairs of a (source, licence) were shown or copied.
    formats : Counter
        Generated and copied images by how they were written, such as "webp, quality 90".
    scores : dict
        Scores of the halves that were missing, by half.
    accepted : int
        Halves that a person looked at and accepted.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.accepted = 0
        self.left_out: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self.made: Counter[tuple[str, str, str, str]] = Counter()
        self.grounded: Counter[str] = Counter()
        self.sources: Counter[tuple[str, str]] = Counter()
        self.formats: Counter[str] = Counter()
        self.scores = {half: array("f") for half in HALVES}

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.rows += other.rows
        self.accepted += other.accepted
        for name in COUNTED:
            getattr(self, name).update(getattr(other, name))
        for half, scores in other.scores.items():
            self.scores[half].extend(scores)

    def leave_out(self, why: str, mask: pa.Array) -> None:
        """Count rows that are left out."""
        if count := pc.sum(mask).as_py():
            self.left_out[why] += count

    def exported(self, rows: pa.Table) -> None:
        """Count rows, of the columns `JUDGED_BY`, that are exported."""
        self.rows += len(rows)
        generated = rows.filter(pc.equal(rows["status"], "completed"))
        self.missing[""] += len(rows) - len(generated)
        completion = generated["completion"].combine_chunks()
        fields = ("generator", "model", "revision", "score", "examples", "image_format")
        columns = [pc.struct_field(completion, name).to_pylist() for name in fields]
        halves = generated["missing"].to_pylist()
        for half, *told in zip(halves, *columns, strict=True):
            generator, model, revision, score, examples, format = told
            if format is not None:
                self.formats[format] += 1
            self.missing[half] += 1
            self.made[(half, generator or "", model or "", revision or "")] += 1
            if score is not None:
                self.scores[half].append(score)
            self.grounded[half] += bool(examples)
            for example in examples or ():
                self.sources[(example["source"] or "", example["licence"] or "")] += 1

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        counters = {
            name: [[key, count] for key, count in getattr(self, name).items()] for name in COUNTED
        }
        scores = {
            half: base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()
            for half, values in self.scores.items()
        }
        return {"rows": self.rows, "accepted": self.accepted, "scores": scores, **counters}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        made = cls()
        made.rows, made.accepted = values["rows"], values["accepted"]
        for name in COUNTED:
            for key, count in values.get(name, ()):
                getattr(made, name)[tuple(key) if isinstance(key, list) else key] = count
        for half, text in values["scores"].items():
            made.scores[half].extend(np.frombuffer(base64.b64decode(text), "<f4").tolist())
        return made


class Bounds:
    """Which cuts keep the same rows, by half: what was kept has more, what was not has less.

    Parameters
    ----------
    kept, dropped : dict
        The least score that was kept and the highest that was not, by half; infinite and None where
        there was none.
    """

    def __init__(
        self,
        kept: Mapping[str, float] | None = None,
        dropped: Mapping[str, float | None] | None = None,
    ) -> None:
        self.kept = dict.fromkeys(HALVES, math.inf) | dict(kept or {})
        self.dropped: dict[str, float | None] = dict.fromkeys(HALVES) | dict(dropped or {})

    def see(self, half: str, kept: pa.ChunkedArray, dropped: pa.ChunkedArray) -> None:
        """Take in scores of a half; one that is null counts as the least."""
        if len(kept):
            self.kept[half] = min(self.kept[half], pc.min(pc.fill_null(kept, -math.inf)).as_py())
        if len(dropped):
            self._drop(half, pc.max(pc.fill_null(dropped, -math.inf)).as_py())

    def add(self, other: Bounds) -> None:
        """Take in another's."""
        for half in HALVES:
            self.kept[half] = min(self.kept[half], other.kept[half])
            self._drop(half, other.dropped[half])

    def _drop(self, half: str, score: float | None) -> None:
        known = [each for each in (self.dropped[half], score) if each is not None]
        self.dropped[half] = max(known, default=None)

    def hold(self, cuts: Mapping[str, float]) -> bool:
        """Whether these cuts would keep the same rows."""
        for half in HALVES:
            cut, dropped = cuts.get(half, -math.inf), self.dropped[half]
            if self.kept[half] < cut or (dropped is not None and dropped >= cut):
                return False
        return True


class Sieve:
    """Decides over rows: those asked for, less what a person rejected and what is below a cut.

    Parameters
    ----------
    only : {"all", "completed", "observed"}
    verdicts : mapping
        A person's verdicts by id; a half that was rejected is not exported, one that was accepted
        is, whatever its score.
    cuts : mapping
        Least scores by half.
    doubts : mapping, optional
        Least confidences by half.
    """

    def __init__(
        self,
        only: str,
        verdicts: Mapping[str, Verdict],
        cuts: Mapping[str, float],
        doubts: Mapping[Half, float] | None = None,
    ) -> None:
        self._only = only
        self._verdicts = verdicts
        self._cuts = dict(cuts)
        self._doubts: dict[str, float] = dict((doubts or {}).items())

    def kept(self, rows: pa.Table, tally: Tally, bounds: Bounds) -> pa.Array:
        """Which rows, of the columns `JUDGED_BY`, are exported, [rows] of bool; all are counted."""
        status = rows["status"].combine_chunks()
        missing = rows["missing"].combine_chunks()
        completion = rows["completion"].combine_chunks()
        score = pc.struct_field(completion, "score")
        generated = pc.equal(status, "completed")
        usable = pc.or_(generated, pc.equal(status, "observed"))
        asked = usable if self._only == "all" else pc.equal(status, self._only)
        low = below(missing, generated, score, self._cuts)
        confidence = pc.struct_field(completion, "confidence")
        doubted = below(missing, generated, confidence, self._doubts)
        said = self._said(rows)
        unwanted = pc.equal(said, "rejected")
        judged = pc.or_(unwanted, pc.equal(said, "accepted"))
        open_to_cuts = pc.and_(pc.and_(asked, generated), pc.invert(pc.or_(judged, doubted)))
        for half in HALVES:
            own = pc.and_(open_to_cuts, pc.fill_null(pc.equal(missing, half), False))
            bounds.see(
                half,
                score.filter(pc.and_(own, pc.invert(low))),
                score.filter(pc.and_(own, low)),
            )
        doubted = pc.and_(doubted, pc.invert(judged))
        low = pc.and_(low, pc.invert(pc.or_(judged, doubted)))
        kept = pc.and_(asked, pc.invert(pc.or_(pc.or_(low, doubted), unwanted)))
        for name in ("rejected", "failed"):
            tally.leave_out(name, pc.equal(status, name))
        tally.leave_out("not asked for", pc.and_(usable, pc.invert(asked)))
        tally.leave_out("below the confidence", pc.and_(asked, doubted))
        tally.leave_out("below the score", pc.and_(asked, low))
        tally.leave_out("rejected in review", pc.and_(asked, unwanted))
        tally.accepted += pc.sum(pc.and_(kept, pc.equal(said, "accepted"))).as_py() or 0
        tally.exported(rows.filter(kept))
        return kept

    def _said(self, rows: pa.Table) -> pa.Array:
        """What a person said of each row; "" where nothing was."""
        named = pc.is_in(rows["id"], pa.array(self._verdicts, pa.string()))
        if not pc.any(named).as_py():
            return pa.array([""] * len(rows))
        listed = rows.select(["id", "status", "completion"]).to_pylist()
        return pa.array([state(self._verdicts.get(row["id"]), row) or "" for row in listed])
