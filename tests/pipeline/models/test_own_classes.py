"""A class of one's own that lacks what a run calls is refused in one line when it is chosen."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from kb.encoders import ENCODERS
from pipeline.models.components import Component
from pipeline.storage.errors import ConfigError
from tests.quick_parts import QuickCaptioner, QuickEncoder


def _without(cls: type, name: str) -> type:
    """A class with all that another has, but one thing."""
    held = {n: getattr(cls, n) for n in dir(cls) if not n.startswith("__") and n != name}
    return type(cls.__name__, (), held | {"__init__": cls.__init__})


class Kindless(BaseModel):
    def models(self) -> dict[str, Any]:
        return {}

    def identity(self) -> dict[str, Any]:
        return {}


class Bare(BaseModel):
    kind: str


class Part(QuickCaptioner):
    """What a test puts another class in the place of."""


HERE = f"{__name__}:Part"


@pytest.mark.parametrize("name", ["load", "close", "memory", "generate"])
def test_a_generator_without_a_method(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Part", _without(QuickCaptioner, name))
    with pytest.raises(ConfigError) as refused:
        Component.choose("captioner", {"kind": HERE}, {})
    assert str(refused.value) == f"captioner.kind: {HERE!r} needs a method `{name}`"


@pytest.mark.parametrize("name", ["load", "close", "dimension", "encode"])
@pytest.mark.parametrize("in_pair", [False, True])
def test_an_encoder_without_a_method(
    name: str, in_pair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.Part", _without(QuickEncoder, name))
    values: dict[str, Any] = {"kind": HERE}
    if in_pair:
        own = {"kind": "tests.quick_parts:QuickEncoder"}
        values = {"kind": "pair", "image": values, "text": own}
    with pytest.raises(ConfigError, match=f"needs a method `{name}`"):
        Component.choose("encoder", values, ENCODERS)


@pytest.mark.parametrize(
    ("settings", "lacks"), [(Bare, "a method `models`"), (Kindless, "a field `kind`")]
)
def test_settings_that_say_too_little(
    settings: type, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Part, "Settings", settings)
    with pytest.raises(ConfigError) as refused:
        Component.choose("captioner", {"kind": HERE}, {})
    assert str(refused.value) == f"captioner.kind: '{HERE}.Settings' needs {lacks}"
