"""Changing settings of a config by dotted name: one variant's, or the values of a sweep."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.config import GENERATORS, Config, make_config
from pipeline.storage.errors import ConfigError

# Sections that say how rows are completed.
_SWEPT = ("knowledge_base", "generation", "selection", *GENERATORS.values())
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
        # Another change may go into it, and the variant's own must stay as it is.
        place[last] = copy.deepcopy(value)
    return values


def derive(config: Config, changes: Mapping[str, Any], output: Path) -> Config:
    """The config with some settings changed and another folder of output.

    Raises
    ------
    ConfigError
        A setting is unknown or its value is refused.
    """
    values = config.model_dump(mode="json")
    # Everything is given already, what the preset said too.
    values |= {"preset": "default", "output": str(output), "export": []}
    # The truth is known of all that it completes, and what a check teaches is for rows of which it isn't:
    # without one all candidates are drawn.
    values["run"]["check"] = 0
    values["generation"] |= {"n": config.generation.most, "second_look": None}
    for scoring in values["selection"].values():
        scoring["floor_confidence"] = None
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
    generator have its section before them: `image_generator.strength=0.5,0.75`. Other sections say
    what is evaluated and how, not how rows are completed; encoders are compared by a config each,
    since the protocol itself goes by the encoder.

    Raises
    ------
    ConfigError
        It has another form, the setting is unknown or not one to compare, or a value is refused.
    """
    label, equals, given = (part.strip() for part in text.partition("="))
    if not (label and equals and given):
        raise ConfigError(f"--sweep: must be key=a,b,c; got {text!r}")
    keys = tuple(_full(key.strip(), config) for key in label.split("+"))
    sweep = Sweep(label, keys, tuple(_values(text, given)))
    for _, changes in sweep.points():
        try:
            derive(config, changes, config.folder)
        except ConfigError as error:
            raise ConfigError(f"--sweep: {error}") from None
    return sweep


def _values(text: str, given: str) -> list[Any]:
    """The values of a sweep, each once."""
    values: dict[str, Any] = {}
    for one in given.split(","):
        try:
            value = yaml.safe_load(one)
        except yaml.YAMLError:
            raise ConfigError(f"--sweep: {one.strip()!r} is no value; got {text!r}") from None
        if value is None and not one.strip():
            raise ConfigError(f"--sweep: a value is empty; got {text!r}")
        values[str(value)] = value
    return list(values.values())


def _full(key: str, config: Config) -> str:
    values = config.model_dump(mode="json")
    # Without a check, an evaluation draws all that may be, and looks at none again.
    values["generation"] |= {"n": config.generation.most, "second_look": None}
    # The config holds of its parts what was given; their settings have the rest.
    values |= {part.section: part.settings.model_dump(mode="json") for part in config.components()}
    for section in _SECTIONS:
        place: Any = values
        parts = (section + key).split(".")
        for part in parts:
            place = place.get(part, _MISSING) if isinstance(place, dict) else _MISSING
        if place is not _MISSING and not isinstance(place, dict):
            if parts[0] not in _SWEPT:
                raise ConfigError(
                    f"--sweep: must be a setting under {', '.join(_SWEPT)}; got {key!r}"
                )
            return section + key
    raise ConfigError(f"--sweep: no such setting: {key!r}")


_MISSING = object()
