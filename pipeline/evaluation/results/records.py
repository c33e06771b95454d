"""The figures of an evaluation, one a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pyarrow as pa


@dataclass(frozen=True)
class Record:
    """One figure.

    Attributes
    ----------
    rate, label : float, str
        Missing rate, and variant with a sweep's point.
    group : "rows", "direct", "retrieval" or "downstream"
    measure : str
    value : float
    half : float or None
        Half the width of its 95 % interval, where it has one: over rows of a direct or retrieval
        figure.
    missing : "text", "image" or None
    mode : str or None
        Of retrieval.
    used : bool or None
        Whether the variant itself retrieves in that mode.
    direction : "image to text", "text to image" or None
        Of a downstream figure; None where it is the mean of both.
    seed : int or None
        Of a downstream figure.
    draw : int
        Of test set and mask, from 0.
    """

    rate: float
    label: str
    group: str
    measure: str
    value: float
    half: float | None = None
    missing: str | None = None
    mode: str | None = None
    used: bool | None = None
    direction: str | None = None
    seed: int | None = None
    draw: int = 0

    @property
    def figure(self) -> tuple[object, ...]:
        """What is measured, whatever the draw."""
        names = (
            "rate",
            "label",
            "group",
            "measure",
            "missing",
            "mode",
            "used",
            "direction",
            "seed",
        )
        return tuple(getattr(self, name) for name in names)


SCHEMA = pa.schema(
    [
        ("rate", pa.float64()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
        ("half", pa.float64()),
        ("missing", pa.string()),
        ("mode", pa.string()),
        ("used", pa.bool_()),
        ("direction", pa.string()),
        ("seed", pa.int64()),
        ("draw", pa.int64()),
    ]
)
assert SCHEMA.names == [one.name for one in fields(Record)]


def names_of(records: Sequence[Record], group: str) -> list[tuple[str | None, str]]:
    """(missing half, measure) of a group, in the order met."""
    return list(dict.fromkeys((r.missing, r.measure) for r in records if r.group == group))
