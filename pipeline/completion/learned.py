"""What the run's check has taught of a half: how candidates are scored, when more of them pay, how sure a row is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pipeline.completion.confidence import Calibration
from pipeline.completion.stopping import Stopping


@dataclass(frozen=True)
class Learned:
    """What rows of a half are told by; None for what is not known.

    Attributes
    ----------
    calibration : Calibration or None
        Their confidence.
    looking : Calibration or None
        Their confidence after a first look, by which they get a second one.
    stopping : Stopping or None
        Whether one more candidate is worth it.
    weights : mapping or None
        Of the score, by the names of the settings that are `auto`.
    """

    calibration: Calibration | None = None
    looking: Calibration | None = None
    stopping: Stopping | None = None
    weights: Mapping[str, float] | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> Self:
        """Of what JSON holds, each under its name."""
        held = values or {}
        stopping = held.get("stopping")
        calibration, looking = (
            None if held.get(name) is None else Calibration.parse(held[name])
            for name in ("calibration", "looking")
        )
        return cls(
            calibration,
            looking,
            None if stopping is None else Stopping.parse(stopping),
            held.get("weights"),
        )
