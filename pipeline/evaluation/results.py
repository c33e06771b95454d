"""The results of an evaluation: one long table of figures, and the comparisons that they allow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.evaluation.claims import ORDERINGS, Comparison
from pipeline.evaluation.downstream import Ranks
from pipeline.evaluation.records import SCHEMA, Record
from pipeline.evaluation.statistics import RECALL_AT, Interval, interval, paired, recall
from pipeline.files import write_whole

# The share of the way that counts as certain: complete - drop this many times its interval.
CERTAIN = 3.0


class Results:
    """What an evaluation found.

    Parameters
    ----------
    facts : mapping
        What a reader has to know beside the figures.

    Attributes
    ----------
    records : list of Record
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self.records: list[Record] = []
        self._start: dict[int, Ranks] = {}
        self._ranks: dict[tuple[float, str], dict[int, Ranks]] = {}
        self._rows: dict[tuple[float, str, str, str], dict[tuple[int, str], float]] = {}

    def add(self, record: Record) -> None:
        self.records.append(record)

    def add_direct(
        self, rate: float, label: str, rows: Mapping[str, float] | None = None, **figure: Any
    ) -> None:
        """A direct figure, with the values of its rows where it is their mean."""
        record = Record(rate, label, **figure)
        self.add(record)
        if rows is not None:
            held = self._rows.setdefault((rate, label, str(record.missing), record.measure), {})
            held |= {(record.draw, row_id): value for row_id, value in rows.items()}

    def direct_gain(
        self, rate: float, better: str, worse: str, missing: str, measure: str
    ) -> Interval | None:
        """Gain in a direct figure, paired over the rows that both have generated."""
        sides = [self._rows.get((rate, label, missing, measure)) for label in (better, worse)]
        if sides[0] is None or sides[1] is None:
            return None
        both = sorted(sides[0].keys() & sides[1].keys())
        if len(both) < 2:
            return None
        return paired(*([side[row_id] for row_id in both] for side in sides if side is not None))

    def add_start(self, ranks: Ranks, draw: int = 0) -> None:
        """Ranks of the checkpoint that fine-tuning starts from."""
        self._start[draw] = ranks

    @property
    def start(self) -> Ranks | None:
        """Ranks of the checkpoint that fine-tuning starts from, on the test pairs of all draws."""
        return _together(self._start)

    def ranks(self, rate: float, label: str) -> Ranks | None:
        """Downstream ranks of a variant on the test pairs of all draws."""
        return _together(self._ranks.get((rate, label), {}))

    def add_ranks(self, rate: float, label: str, ranks: Ranks, rows: int, draw: int = 0) -> None:
        """Downstream ranks of a variant that trained on so many rows."""
        self._ranks.setdefault((rate, label), {})[draw] = ranks
        self.add(Record(rate, label, "rows", "trained on", rows, draw=draw))
        for direction, found in _directions(ranks).items():
            for seed, own in enumerate(found):
                for k in RECALL_AT:
                    self.add(
                        Record(
                            rate,
                            label,
                            "downstream",
                            f"R@{k}",
                            recall(own, k),
                            direction=direction,
                            seed=seed,
                            draw=draw,
                        )
                    )

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
        """A figure as its mean over draws; their intervals are taken as independent."""
        alike = [one for one in self.records if one.figure == record.figure]
        if len(alike) == 1:
            return record
        halves = [one.half for one in alike if one.half is not None]
        half = float(np.sqrt(np.square(halves).sum()) / len(halves)) if halves else None
        return replace(record, value=float(np.mean([one.value for one in alike])), half=half)

    def recall(self, rate: float, label: str, direction: str, k: int) -> Interval | None:
        """Downstream recall: mean and interval over seeds."""
        ranks = self.ranks(rate, label)
        if ranks is None:
            return None
        return interval([recall(own, k) for own in _directions(ranks)[direction]])

    def mean_recall(self, rate: float, label: str, k: int = 1) -> np.ndarray | None:
        """Downstream recall in the mean of both directions, [seeds]."""
        ranks = self.ranks(rate, label)
        return None if ranks is None else _hits(ranks, k).mean(axis=1)

    def compare(self, rate: float, better: str, worse: str, claim: str = "") -> Comparison | None:
        """The gain of one variant over another; None where one was not measured."""
        pair = [self.ranks(rate, label) for label in (better, worse)]
        if pair[0] is None or pair[1] is None:
            return None
        a, b = (_hits(ranks, 1) for ranks in pair if ranks is not None)
        seeds = min(len(a), len(b))
        a, b = a[:seeds], b[:seeds]
        return Comparison(
            rate,
            better,
            worse,
            claim,
            paired(a.mean(axis=1), b.mean(axis=1)),
            paired(a.mean(axis=0), b.mean(axis=0)),
        )

    def draw_gains(self, rate: float, better: str, worse: str) -> dict[int, float]:
        """The gain of one variant over another in each draw by itself, in the mean over seeds."""
        ours, theirs = (self._ranks.get((rate, label), {}) for label in (better, worse))
        return {
            draw: float(_hits(ours[draw], 1).mean() - _hits(theirs[draw], 1).mean())
            for draw in sorted(ours.keys() & theirs.keys())
        }

    def orderings(self) -> list[tuple[str, str, str]]:
        """What is compared: the paper's orderings, and each point of a sweep with what it changes."""
        points = [label.partition(" ") for label in self.labels if " " in label]
        swept = [(f"{variant} {point}", variant, "") for variant, _, point in points]
        return [*ORDERINGS, *swept]

    def comparisons(self) -> list[Comparison]:
        """The orderings that can be looked at."""
        orderings = self.orderings()
        found = [self.compare(rate, *ordering) for rate in self.rates for ordering in orderings]
        return [one for one in found if one is not None]

    def span(self, rate: float) -> Comparison | None:
        """complete − drop: what there is to win."""
        return self.compare(rate, "complete", "drop", "there is something to win")

    def certain(self, rate: float) -> bool:
        """Whether complete − drop exceeds its interval three times; below, nothing counts."""
        span = self.span(rate)
        return span is not None and span.over_seeds.mean > CERTAIN * span.over_seeds.half

    def way(self, rate: float, label: str) -> Interval | None:
        """Share of the way from drop to complete in mean R@1.

        Its interval is that of a ratio of means over paired seeds (by linearisation): of
        (gain − share · span) / mean span, so that what the seeds of both have in common is not
        counted twice.
        """
        means = [self.mean_recall(rate, name) for name in (label, "drop", "complete")]
        if any(one is None for one in means):
            return None
        own, drop, complete = (one for one in means if one is not None)
        seeds = min(map(len, (own, drop, complete)))
        gain, span = own[:seeds] - drop[:seeds], complete[:seeds] - drop[:seeds]
        wide = float(span.mean())
        if wide <= 0:
            return None
        share = float(gain.mean()) / wide
        return Interval(share, interval((gain - share * span) / wide).half)

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
                    label: asdict(way)
                    for label in self.labels
                    if (way := self.way(rate, label)) is not None
                }
                for rate in self.rates
            },
            "comparisons": [asdict(one) | {"holds": one.holds} for one in self.comparisons()],
            "records": [
                {name: value for name, value in asdict(one).items() if value is not None}
                for one in self.records
            ],
        }


def _together(draws: Mapping[int, Ranks]) -> Ranks | None:
    """The test pairs of all draws as if they were one test set; as many seeds as all draws have."""
    if not draws:
        return None
    held = [draws[number] for number in sorted(draws)]
    seeds = min(len(one.image_to_text) for one in held)
    return Ranks(
        *(
            np.concatenate([getattr(one, name)[:seeds] for one in held], axis=1)
            for name in ("image_to_text", "text_to_image")
        )
    )


def _directions(ranks: Ranks) -> dict[str, np.ndarray]:
    return {"image to text": ranks.image_to_text, "text to image": ranks.text_to_image}


def _hits(ranks: Ranks, k: int) -> np.ndarray:
    """Share of both directions that is hit, [seeds, test pairs]."""
    return ((ranks.image_to_text < k).astype(float) + (ranks.text_to_image < k)) / 2
