"""The variants that evaluation compares: each is a set of settings of the one pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import Config


@dataclass(frozen=True)
class Variant:
    """A way to deal with incomplete rows.

    Attributes
    ----------
    name, description : str
    changes : mapping of dotted setting to value
        What it changes in the config.
    generates : bool
        False where no run is needed: rows are left out, or the truth is taken.
    """

    name: str
    description: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    generates: bool = True


_BOTH = {"knowledge_base.sources": ["internal", "external"]}
_CROSS = {"knowledge_base.retrieval.mode": "cross"}
_FUSION = _BOTH | {"knowledge_base.purify": True, "knowledge_base.retrieval.mode": "fusion"}

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("drop", "incomplete rows are left out", generates=False),
        Variant(
            "direct",
            "generated without any example",
            {"generation.grounded": False, "knowledge_base.sources": ["internal"]},
        ),
        Variant(
            "nearest",
            "the retrieved example itself is the answer",
            _FUSION
            | {
                "generation.n": 1,
                "captioner": {"kind": "nearest"},
                "image_generator": {"kind": "nearest"},
            },
        ),
        Variant(
            "vanilla",
            "internal pairs, cross-modal retrieval",
            {"knowledge_base.sources": ["internal"]} | _CROSS,
        ),
        Variant(
            "combined",
            "internal and raw external pairs, cross-modal retrieval",
            _BOTH | {"knowledge_base.purify": False} | _CROSS,
        ),
        Variant(
            "purified",
            "internal and purified external pairs, cross-modal retrieval",
            _BOTH | {"knowledge_base.purify": True} | _CROSS,
        ),
        Variant("rag4dmc", "internal and purified external pairs, fusion retrieval", _FUSION),
        Variant("complete", "the truth", generates=False),
        Variant(
            "without-alignment",
            "rag4dmc whose external pairs are filtered, not rotated",
            # A pull of this weight leaves no rotation but the identity.
            _FUSION | {"knowledge_base.alignment.gamma": 1e6},
        ),
        Variant(
            "without-filter",
            "rag4dmc that keeps every external pair, rotated",
            # Below the least that either figure can be.
            _FUSION
            | {"knowledge_base.filter.tau_cent": -2.0, "knowledge_base.filter.tau_inst": -2.0},
        ),
        Variant(
            "without-fusion",
            "rag4dmc with the first stage of retrieval alone",
            _FUSION | {"knowledge_base.retrieval.mode": "intra"},
        ),
        Variant(
            "without-selection",
            "rag4dmc that takes the first valid candidate",
            _FUSION
            | {
                f"selection.{half}.{weight}": 0.0
                for half in ("caption", "image")
                for weight in ("lambda1", "lambda2")
            },
        ),
        Variant("one-candidate", "rag4dmc with n = 1", _FUSION | {"generation.n": 1}),
        Variant("ten-candidates", "rag4dmc with n = 10", _FUSION | {"generation.n": 10}),
    )
}

# The rows of the paper's table, and the ablations of single steps.
TABLE = ("drop", "direct", "nearest", "vanilla", "combined", "purified", "rag4dmc", "complete")
ABLATIONS = (
    "without-alignment",
    "without-filter",
    "without-fusion",
    "without-selection",
    "one-candidate",
    "ten-candidates",
)

# Where a short name in a sweep may begin.
_SECTIONS = ("", "knowledge_base.", "generation.", "selection.")


def change(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set dotted settings in nested `values`, in place.

    Raises
    ------
    ConfigError
        A section on the way does not exist.
    """
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            if not isinstance(place.get(section), dict):
                raise ConfigError(f"{key}: no such setting")
            place = place[section]
        place[last] = value
    return values


def derive(config: Config, changes: Mapping[str, Any], output: Path) -> Config:
    """The config with some settings changed and another folder of output.

    Raises
    ------
    ConfigError
        A setting is unknown or its value is refused.
    """
    from pipeline.config import make_config

    values = config.model_dump(mode="json")
    # Everything is given already, what the preset said too.
    values |= {"preset": "default", "output": str(output), "export": []}
    # Another generator is none for a half that is not made.
    changes = {key: value for key, value in changes.items() if values.get(key, "") is not None}
    return make_config(change(values, changes), config.base)


@dataclass(frozen=True)
class Sweep:
    """Values of a setting that are compared.

    Attributes
    ----------
    label : str
        The setting as it was asked for.
    keys : tuple of str
        Dotted settings that take each value together.
    values : tuple
    """

    label: str
    keys: tuple[str, ...]
    values: tuple[Any, ...]

    def points(self) -> list[tuple[str, dict[str, Any]]]:
        """A label and the changes of each value."""
        return [(f"{self.label}={value}", dict.fromkeys(self.keys, value)) for value in self.values]


def parse_sweep(text: str, config: Config) -> Sweep:
    """A sweep as `key=a,b,c`; `+` joins keys that take the same value.

    A key may be short for one under `knowledge_base`, `generation` or `selection`:
    `retrieval.k=5,10,15`, `n=1,4,10`, `filter.tau_cent+filter.tau_inst=0.4,0.6`. Settings of a
    part have its section before them: `image_generator.strength=0.5,0.75`.

    Raises
    ------
    ConfigError
        It has another form, or the setting is unknown.
    """
    import yaml

    label, equals, given = (part.strip() for part in text.partition("="))
    if not (label and equals and given):
        raise ConfigError(f"--sweep: must be key=a,b,c; got {text!r}")
    keys = tuple(_full(key.strip(), config) for key in label.split("+"))
    values = tuple(yaml.safe_load(value) for value in given.split(","))
    return Sweep(label, keys, values)


def _full(key: str, config: Config) -> str:
    values = config.model_dump(mode="json")
    # The config holds of its parts what was given; their settings have the rest.
    values |= {part.section: part.settings.model_dump(mode="json") for part in config.parts()}
    for section in _SECTIONS:
        place: Any = values
        parts = (section + key).split(".")
        for part in parts:
            place = place.get(part, _MISSING) if isinstance(place, dict) else _MISSING
        if place is not _MISSING and not isinstance(place, dict):
            return section + key
    raise ConfigError(f"--sweep: no such setting: {key!r}")


_MISSING = object()


def name_variants(text: str | Sequence[str]) -> list[str]:
    """Variants by comma; `table` and `ablations` stand for theirs.

    Raises
    ------
    ConfigError
        One is unknown.
    """
    asked = text.split(",") if isinstance(text, str) else list(text)
    names: list[str] = []
    for name in (one.strip() for one in asked):
        if name in ("table", "ablations"):
            names += TABLE if name == "table" else ABLATIONS
        elif name in VARIANTS:
            names.append(name)
        else:
            known = ", ".join(("table", "ablations", *VARIANTS))
            raise ConfigError(f"--variants: must be among {known}; got {name!r}")
    return list(dict.fromkeys(names))
