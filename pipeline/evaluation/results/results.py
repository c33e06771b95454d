"""The results of an evaluation: one long table of figures, and the comparisons that they allow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.check.intervals import Interval, interval, paired
from pipeline.evaluation.results.claims import ORDERINGS, Comparison
from pipeline.evaluation.results.ranked import (
    MEASURES,
    RECALL_AT,
    Ranked,
    Ranks,
    Spread,
    gain,
    recall,
    way,
)
from pipeline.evaluation.results.records import SCHEMA, Record
from pipeline.storage.files import write_whole

# The share of the way that counts as certain: complete - drop this many times its interval.
CERTAIN = 3.0


class Results:
    """What an evaluation found.

    Parameters
    ----------
    facts : mapping
        What a reader has to know beside the figures; `measure` is what variants are compared by
        downstream, "mean R@1" unless it says "mean recall".

    Attributes
    ----------
    records : list of Record
    groups : dict of id to name
        Rows of one name share a picture or a text, and are not independent; a row that is not named
        is by itself.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self.records: list[Record] = []
        self.groups: dict[str, str] = {}
        # Every figure by draw.
        self._figures: dict[tuple[object, ...], dict[int, Record]] = {}
        # Of figures that are means over rows: each row's value, by figure, draw and row.
        self._rows: dict[tuple[object, ...], dict[tuple[int, str], float]] = {}
        self._ranked: dict[tuple[float, str], Ranked] = {}
        self._start = Ranked()

    def add(self, record: Record, rows: Mapping[str, float] | None = None) -> None:
        """A figure of one draw, with the values of its rows by id where it is their mean.

        Raises
        ------
        ValueError
            The draw has this figure already: counted twice, it would look surer than it is.
        """
        alike = self._figures.setdefault(record.figure, {})
        if record.draw in alike:
            raise ValueError(f"draw {record.draw} has this figure already: {record}")
        alike[record.draw] = record
        self.records.append(record)
        if rows is not None:
            held = self._rows.setdefault(record.figure, {})
            held |= {(record.draw, row_id): value for row_id, value in rows.items()}

    def direct_gain(
        self, rate: float, better: str, worse: str, missing: str, measure: str
    ) -> Interval | None:
        """Gain in a direct figure, paired over the rows that both have generated."""
        figures = [
            Record(rate, label, "direct", measure, 0.0, missing=missing).figure
            for label in (better, worse)
        ]
        a, b = (self._rows.get(figure, {}) for figure in figures)
        both = sorted(a.keys() & b.keys())
        names = self._names([row_id for _, row_id in both])
        if len(set(names)) < 2:
            return None
        return paired([a[key] for key in both], [b[key] for key in both], names)

    def _names(self, ids: Sequence[str]) -> list[str]:
        """The groups of rows, which intervals take as one."""
        return [self.groups.get(row_id, row_id) for row_id in ids]

    def add_start(self, ranks: Ranks, pairs: Sequence[str], draw: int = 0) -> None:
        """Ranks of the test pairs, by id, by the checkpoint that fine-tuning starts from."""
        self._start.add(ranks, self._names(pairs), draw)

    @property
    def start(self) -> Ranks | None:
        """Ranks of the checkpoint that fine-tuning starts from, on the test pairs of all draws."""
        return self._start.ranks if self._start.names else None

    def add_ranks(
        self,
        rate: float,
        label: str,
        ranks: Ranks,
        pairs: Sequence[str],
        rows: int,
        draw: int = 0,
    ) -> None:
        """Downstream ranks of the test pairs, by id, by a variant that trained on so many rows."""
        self._ranked.setdefault((rate, label), Ranked()).add(ranks, self._names(pairs), draw)
        self.add(Record(rate, label, "rows", "trained on", rows, draw=draw))
        figures: list[tuple[str, str | None, list[float]]] = [
            (f"R@{k}", direction, [recall(own, k) for own in found])
            for direction, found in _directions(ranks).items()
            for k in RECALL_AT
        ]
        figures += [
            (name, None, ranks.hits(at).mean(axis=1).tolist()) for name, at in MEASURES.items()
        ]
        for measure, direction, values in figures:
            for seed, value in enumerate(values):
                record = Record(rate, label, "downstream", measure, value, draw=draw)
                self.add(replace(record, direction=direction, seed=seed))

    @property
    def measure(self) -> str:
        """What variants are compared by downstream."""
        return str(self.facts.get("measure", "mean R@1"))

    @property
    def rates(self) -> list[float]:
        return sorted({record.rate for record in self.records})

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(record.label for record in self.records))

    def value(self, rate: float, label: str, **which: Any) -> Record | None:
        """The first record of a variant with these fields, as the mean over draws."""
        for record in self.records:
            if (record.rate, record.label) == (rate, label) and all(
                getattr(record, name) == wanted for name, wanted in which.items()
            ):
                return self.pooled(record)
        return None

    def pooled(self, record: Record) -> Record:
        """A figure over all draws: where it is a mean over rows, with an interval that counts a
        row of several draws as one, else the mean of the draws without an interval."""
        alike = self._figures[record.figure].values()
        if len(alike) == 1:
            return record
        rows = self._rows.get(record.figure)
        if rows is None:
            return replace(record, value=float(np.mean([one.value for one in alike])), half=None)
        found = interval(list(rows.values()), self._names([row_id for _, row_id in rows]))
        return replace(record, value=found.mean, half=found.half)

    def ranked(self, rate: float, label: str) -> Ranked | None:
        """Ranks of the test pairs by a variant's fine-tuned models; None where there are none."""
        return self._ranked.get((rate, label))

    def recall(self, rate: float, label: str, direction: str, k: int) -> Interval | None:
        """Downstream recall on the test pairs of all draws: mean and interval over seeds."""
        ranked = self.ranked(rate, label)
        if ranked is None:
            return None
        return interval([recall(own, k) for own in _directions(ranked.ranks)[direction]])

    def mean_recall(self, rate: float, label: str, measure: str | None = None) -> np.ndarray | None:
        """Downstream recall by one of `MEASURES`, by default the main one, [seeds]."""
        ranked, at = self.ranked(rate, label), MEASURES[measure or self.measure]
        return None if ranked is None else ranked.hits(at).mean(axis=1)

    def gain(
        self, rate: float, better: str, worse: str, measure: str | None = None
    ) -> Spread | None:
        """The gain of one variant over another in it; None where one was not measured."""
        ours, theirs = (self.ranked(rate, label) for label in (better, worse))
        if ours is None or theirs is None:
            return None
        return gain(ours, theirs, MEASURES[measure or self.measure])

    def draw_gains(
        self, rate: float, better: str, worse: str, measure: str | None = None
    ) -> dict[int, float]:
        """The same in each draw by itself, in the mean over seeds."""
        ours, theirs = (self.ranked(rate, label) for label in (better, worse))
        if ours is None or theirs is None:
            return {}
        at = MEASURES[measure or self.measure]
        less = theirs.by_draw(at)
        return {draw: mean - less[draw] for draw, mean in ours.by_draw(at).items()}

    def orderings(self) -> list[tuple[str, str, str]]:
        """What is compared: the paper's orderings, and each point of a sweep with what it changes."""
        points = [label.partition(" ") for label in self.labels if " " in label]
        swept = [(f"{variant} {point}", variant, "") for variant, _, point in points]
        return [*ORDERINGS, *swept]

    def comparisons(self, measure: str | None = None) -> list[Comparison]:
        """The orderings that can be looked at, by one of `MEASURES`, by default the main one."""
        return [
            Comparison(
                rate,
                better,
                worse,
                claim,
                found,
                self.certain(rate, measure),
                measure or self.measure,
            )
            for rate in self.rates
            for better, worse, claim in self.orderings()
            if (found := self.gain(rate, better, worse, measure)) is not None
        ]

    def span(self, rate: float, measure: str | None = None) -> Spread | None:
        """complete − drop: what there is to win."""
        return self.gain(rate, "complete", "drop", measure)

    def certain(self, rate: float, measure: str | None = None) -> bool:
        """Whether complete − drop exceeds its intervals over seeds and over test pairs three times;
        below, or where it was not measured, nothing downstream counts."""
        span = self.span(rate, measure)
        return span is not None and span.exceeds(CERTAIN)

    def way(self, rate: float, label: str) -> Spread | None:
        """Share of the way from drop to complete in the main measure; None where that does not
        count."""
        own, low, high = (self.ranked(rate, name) for name in (label, "drop", "complete"))
        if own is None or low is None or high is None or not self.certain(rate):
            return None
        return way(own, low, high, MEASURES[self.measure])

    def table(self) -> pa.Table:
        """All records."""
        return pa.Table.from_pylist([asdict(record) for record in self.records], schema=SCHEMA)

    def save(self, folder: Path) -> Path:
        """Write `results.parquet`, with the facts in its metadata; its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "results.parquet"
        sink = pa.BufferOutputStream()
        metadata = {"rag4dmc": json.dumps(self.facts)}
        pq.write_table(self.table().replace_schema_metadata(metadata), sink)
        write_whole(path, sink.getvalue().to_pybytes())
        return path

    def answer(self) -> dict[str, Any]:
        """The results for a program: facts, records and comparisons."""
        return {
            "facts": self.facts,
            "certain": {f"{rate:g}": self.certain(rate) for rate in self.rates},
            "way": {
                f"{rate:g}": {
                    label: None if (found := self.way(rate, label)) is None else asdict(found)
                    for label in self.labels
                    if self.ranked(rate, label) is not None
                }
                for rate in self.rates
            },
            "comparisons": [
                asdict(one) | {"holds": one.holds}
                for measure in (self.measure, *(m for m in MEASURES if m != self.measure))
                for one in self.comparisons(measure)
            ],
            # Of all draws together, which `draw` lists; the records are of each.
            "pooled": [
                _given(self.pooled(next(iter(draws.values())))) | {"draw": sorted(draws)}
                for draws in self._figures.values()
            ],
            "records": [_given(one) for one in self.records],
        }


def _given(record: Record) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if value is not None}


def _directions(ranks: Ranks) -> dict[str, np.ndarray]:
    return {"image to text": ranks.image_to_text, "text to image": ranks.text_to_image}
