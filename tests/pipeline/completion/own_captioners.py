"""Captioners that don't keep to the contract: what a run makes of what they say of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from examples.own_captioner import AgreementCaptioner
from generators.base import Generated
from tests.quick_parts import QuickCaptioner


class UndeclaredSettings(BaseModel):
    kind: str
    sharpness: float = 4.0

    def models(self) -> dict[str, tuple[str, str | None]]:
        return {}

    def identity(self) -> dict[str, Any]:
        return self.model_dump()


class Undeclared(AgreementCaptioner):
    """Makes nothing without an example, and does not say so."""

    Settings = UndeclaredSettings  # type: ignore[assignment]


class Boaster(QuickCaptioner):
    """Says that it was shown what it was not given."""

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        return [
            replace(
                answer,
                candidates=tuple(replace(one, shown=("unheard of",)) for one in answer.candidates),
            )
            for answer in super().generate(requests)
        ]
