"""What the report says of a run's rows: counts and figures of all, cards of a sample.

Rows stream through once, with no more of each than figures are made of; the sample's are read whole.
"""

from __future__ import annotations

import base64
import heapq
import io
import math
import random
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.dataset.forms.reasons import kind_of
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.dataset.schema import OWN_COLUMNS
from pipeline.storage.digests import digest

PARTS = ("score", "cosine", "bleu", "niqe")
THUMBNAIL = 256
# Of a text that is shown, and of texts that a row has.
LONGEST = 2000
LONGEST_REASON = 300
MOST_LINES = 20

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StoredRow:
    """Where a row of a completed dataset's part lies: `number` of a row group."""

    path: Path
    group: int
    number: int


class StoredRows:
    """Reads stored rows whole; those that follow one another in a row group share one reading."""

    def __init__(self) -> None:
        self._held: tuple[Path, int] | None = None
        self._table: Any = None

    def read(self, place: StoredRow) -> dict[str, Any]:
        """The row, without the pass-through columns."""
        import pyarrow.parquet as pq

        if self._held != (place.path, place.group):
            with pq.ParquetFile(place.path) as file:
                self._table = file.read_row_group(place.group, columns=list(OWN_COLUMNS))
            self._held = place.path, place.group
        row: dict[str, Any] = self._table.slice(place.number, 1).to_pylist()[0]
        return row


@dataclass
class Figures:
    """Counts and figures over all rows.

    Attributes
    ----------
    outcomes : Counter of (status, missing)
    reasons : Counter of (status, missing, reason)
    chosen, others : dict of (missing, part) to array of float
        Score parts of the chosen and of the other valid candidates.
    invalid : Counter of (missing, reason)
        Candidates left out, by fault.
    reviewed : Counter
        Completed rows by what a person said of them ("accepted", "rejected", "redone").
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    chosen: dict[tuple[str, str], array] = field(default_factory=dict)
    others: dict[tuple[str, str], array] = field(default_factory=dict)
    invalid: Counter[tuple[str, str]] = field(default_factory=Counter)
    reviewed: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        missing = row.get("missing") or ""
        self.outcomes[row["status"], missing] += 1
        if row.get("reason"):
            self.reasons[row["status"], missing, cut(kind_of(row["reason"]), LONGEST_REASON)] += 1
        if row.get("review"):
            self.reviewed[row["review"]] += 1
        completion = row.get("completion") or {}
        for number, candidate in enumerate(completion.get("candidates") or []):
            if not candidate["valid"]:
                self.invalid[missing, candidate.get("reason") or "invalid"] += 1
                continue
            side = self.chosen if number == completion.get("chosen") else self.others
            for part in PARTS:
                value = candidate.get(part)
                if value is not None:
                    side.setdefault((missing, part), array("f")).append(value)


class Sample:
    """A bounded sample of rows: all while they are few, then the best, the worst, and random ones.

    Parameters
    ----------
    size : int
        About how many rows altogether; up to half go to the best and the worst scores, and a quarter to
        the least sure, where that is known.
    seed : int
        Seed of the random part.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seen = 0
        self._random = random.Random(seed)
        self._few: list[Row] = []
        self._heaps: dict[str, list[tuple[float, int, Row]]] = {}

    def add(self, row: Row) -> None:
        """Offer a row; it is held only while it belongs to the sample."""
        self.seen += 1
        if self.seen <= self.size:
            self._few.append(row)
        else:
            self._few.clear()
        status, missing = row["status"], row.get("missing") or ""
        score = (row.get("completion") or {}).get("score")
        eighth = max(self.size // 8, 1)
        if status == "completed" and score is not None:
            self._offer(f"best {missing}", score, eighth, row)
            self._offer(f"worst {missing}", -score, eighth, row)
        if (confidence := (row.get("completion") or {}).get("confidence")) is not None:
            self._offer(f"doubtful {missing}", -confidence, eighth, row)
        self._offer(f"{status} {missing}", self._random.random(), eighth, row)

    def _offer(self, kind: str, rank: float, room: int, row: Row) -> None:
        heap = self._heaps.setdefault(kind, [])
        entry = (rank, -self.seen, row)
        if len(heap) < room:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)

    def rows(self) -> list[Row]:
        """The sampled rows in the order of the input, each once."""
        if self.seen <= self.size:
            return list(self._few)
        found = {-order: row for heap in self._heaps.values() for _, order, row in heap}
        return [found[order] for order in sorted(found)]


class Thumbnails:
    """Small WebP pictures as data URIs, each stored once and known by a key."""

    def __init__(self, side: int = THUMBNAIL) -> None:
        self.side = side
        self.uris: dict[str, str] = {}

    def add(self, key: str, data: bytes | None) -> str | None:
        """The key of the picture's thumbnail; None where there is none to be had."""
        if key in self.uris:
            return key
        if not data:
            return None
        try:
            image = decode(data)
        except UndecodableImage:
            return None
        image.thumbnail((self.side, self.side))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=72, method=4)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        self.uris[key] = f"data:image/webp;base64,{encoded}"
        return key


def card(
    row: Row, thumbnails: Thumbnails, example_image: Callable[[str], bytes | None] | None
) -> dict[str, Any]:
    """What a card shows of a whole row, in values that JSON can hold; Nones are left out."""
    completion = row.get("completion") or {}
    image = row.get("image") or {}
    shown = {
        "id": row["id"],
        "status": row["status"],
        "missing": row.get("missing"),
        "reason": cut(row.get("reason")),
        "review": row.get("review"),
        "text": _lines(row.get("text")),
        "image": thumbnails.add(f"row {row['id']}", image.get("bytes")),
    }
    if completion:
        facts = ("generator", "model", "revision", "prompt", "seed", "attempt", "run_id")
        shown["made"] = _compact({name: cut(completion.get(name)) for name in facts})
        shown["kb"] = completion.get("kb_version")
        for name in ("score", "confidence", "gain_probability"):
            shown[name] = _short(completion.get(name))
        shown["chosen"] = completion.get("chosen")
        shown["examples"] = [
            _compact(
                {
                    **{name: example.get(name) for name in ("id", "source", "licence")},
                    "text": cut(example.get("text")),
                    "shown": example.get("shown"),
                    **{name: _short(example.get(name)) for name in ("intra", "cross", "score")},
                    **_picture(example, thumbnails, example_image),
                }
            )
            for example in completion.get("examples") or []
        ]
        shown["dropped"] = [
            _compact({name: cut(pair.get(name)) for name in ("id", "source", "licence", "reason")})
            for pair in completion.get("dropped") or []
        ]
        shown["candidates"] = [
            _compact(
                {
                    **{name: cut(candidate.get(name)) for name in ("text", "seed", "attempt")},
                    **{name: _short(candidate.get(name)) for name in PARTS},
                    "valid": candidate["valid"],
                    "reason": cut(candidate.get("reason")),
                    "notes": [cut(note) for note in candidate.get("notes") or ()] or None,
                    "alone": True if not candidate.get("examples") else None,
                }
            )
            for candidate in completion.get("candidates") or []
        ]
    return _compact(shown)


def _picture(
    example: Row, thumbnails: Thumbnails, example_image: Callable[[str], bytes | None] | None
) -> dict[str, Any]:
    """The picture of an example; where the pair has another one by now, that it is so."""
    recorded = example.get("picture")
    key = f"pair {example['id']} {recorded or ''}"
    if key in thumbnails.uris:
        return {"image": key}
    data = None if example_image is None else example_image(example["id"])
    if data and recorded is not None and digest(data) != recorded:
        return {"changed": True}
    return {"image": thumbnails.add(key, data)}


def _lines(text: Any) -> list[str]:
    if text is None:
        return []
    lines = [text] if isinstance(text, str) else [line for line in text if line]
    more = [f"… and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return [cut(line) for line in lines[:MOST_LINES]] + more


def cut(value: Any, most: int = LONGEST) -> Any:
    """A text as it is shown: cut, with its length, where it is longer than a page can bear.

    Examples
    --------
    >>> cut("abcdef", 3), cut(7)
    ('abc… (6 characters)', 7)
    """
    if not isinstance(value, str) or len(value) <= most:
        return value
    return f"{value[:most]}… ({len(value):,} characters)"


def _short(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 4)


def _compact(values: dict[str, Any]) -> dict[str, Any]:
    # A seed has 63 bits, more than a number in the browser holds.
    return {
        name: str(value) if name == "seed" else value
        for name, value in values.items()
        if value is not None
    }
