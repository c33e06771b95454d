"""Components chosen by `kind`: from a section of the config to a class, its settings and its models.

A kind is a registered name or `package.module:ClassName`. The class carries its `Settings`, and is
constructed as `cls(settings, paths)` with the local folder of every model that the settings name.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from generators.service_errors import ServiceRefused
from kb.device import resolve_device
from pipeline.models.resolution import ResolvedModel, missing_bytes, resolve_models
from pipeline.storage.errors import ConfigError, first_error

logger = logging.getLogger(__name__)

# Of these OSErrors another try mends nothing; others may pass, and those that transformers raises of
# its own have no number.
_LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)

# What a class is asked for, and its settings.
_OF_GENERATORS = ("load", "close", "memory", "generate")
_OF_ENCODERS = ("load", "close", "dimension", "encode")
_OF_SETTINGS = ("models", "identity")


@dataclass(frozen=True)
class Component:
    """One chosen component: where it stands in the config, its class and its validated settings."""

    section: str
    cls: type
    settings: Any

    @classmethod
    def choose(cls, section: str, values: Any, registry: Mapping[str, str]) -> Component:
        """Find the class of `values["kind"]` and validate the rest by its `Settings`.

        Raises
        ------
        ConfigError
            Unknown kind, a class that can't be imported, or settings that don't validate.
        """
        if not isinstance(values, Mapping) or "kind" not in values:
            raise ConfigError(
                f"{section}.kind: required; one of {', '.join(registry)}, or package.module:Class"
            )
        kind = str(values["kind"])
        chosen = _import(section, kind, registry)
        settings_class = getattr(chosen, "Settings", None)
        if not (isinstance(settings_class, type) and issubclass(settings_class, BaseModel)):
            raise ConfigError(
                f"{section}.kind: {kind!r} needs a pydantic class `Settings` as an attribute"
            )
        _check_parts(section, kind, chosen, settings_class)
        try:
            settings = settings_class(**values)
        except ValidationError as error:
            raise ConfigError(first_error(error, section)) from None
        return cls(section, chosen, settings)

    @property
    def kind(self) -> str:
        return str(self.settings.kind)

    @property
    def served(self) -> str | None:
        """The name of a model that is loaded elsewhere: a server's; None where there is none."""
        named = None if self.settings.models() else getattr(self.settings, "model", None)
        return None if named is None else str(named)

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role to (hub id or folder, pinned revision) of every model that the component needs.

        Raises
        ------
        ConfigError
            The settings name none that there is.
        """
        try:
            return dict(self.settings.models())
        except ValueError as error:
            raise ConfigError(f"{self.section}: {error}") from None

    def resolve(self, base: Path, offline: bool) -> dict[str, ResolvedModel]:
        """The local snapshot of every model that the component needs; see `resolve_models`."""
        choose = getattr(self.settings, "files", None)
        return resolve_models(self.section, self.models(), base, offline, choose)

    def fetch(self, base: Path) -> dict[str, ResolvedModel]:
        """As `resolve`, with what the hub has now of every model, and nothing missing or damaged."""
        choose = getattr(self.settings, "files", None)
        return resolve_models(self.section, self.models(), base, False, choose, renew=True)

    def missing_bytes(self, base: Path) -> dict[str, int | None]:
        """What is to be downloaded by role; see `pipeline.models.resolution.missing_bytes`."""
        choose = getattr(self.settings, "files", None)
        return missing_bytes(self.section, self.models(), base, choose)

    def identity(self, models: Mapping[str, ResolvedModel]) -> dict[str, Any]:
        """What the component's output depends on: settings and the revision of every model."""
        # A model is known by its content: the same checkpoint elsewhere is nothing new.
        named = {
            _plain(name): models[role].revision
            for role, (name, _) in self.settings.models().items()
        }
        own: dict[str, Any] = _by_content(self.settings.identity(), named)
        # One that doesn't name itself would be taken for any other such.
        identity = {"kind": self.kind} | own
        return identity | {f"{role}@revision": model.revision for role, model in models.items()}

    def create(self, models: Mapping[str, ResolvedModel]) -> Any:
        """Construct the component; it loads nothing yet."""
        return self.cls(self.settings, {role: model.path for role, model in models.items()})

    def load(self, made: Any) -> None:
        """Load what `create` made.

        Raises
        ------
        ConfigError
            It can't be loaded: not such a model, damaged, no such GPU, no room.
        ServiceRefused, OSError
            As they come: the key of a server is missing; a disk or the network failed.
        """
        try:
            made.load()
        except (ConfigError, ServiceRefused):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno and not isinstance(error, _LASTING):
                raise
            logger.debug("%s can't be loaded", self.section, exc_info=True)
            told = " ".join(str(error).split())
            if told.startswith("device "):
                raise ConfigError(
                    f"{self.section}.device: {told.removeprefix('device ')}"
                ) from None
            if not isinstance(error, (OSError, ValueError)):
                told = f"{type(error).__name__}: {told}"
            names = ", ".join(name for name, _ in self.models().values()) or self.kind
            raise ConfigError(f"{self.section}: {names} can't be loaded: {told}") from error


def check_device(field: str, device: str) -> None:
    """Refuse the name of a GPU that is not there, whichever part it is for.

    Raises
    ------
    ConfigError
    """
    try:
        resolve_device(device)
    except ValueError as error:
        raise ConfigError(f"{field}: {str(error).removeprefix('device ')}") from None


def _check_parts(section: str, kind: str, chosen: type, settings: type[BaseModel]) -> None:
    """Refuse a class that lacks what a run calls, before anything is loaded or built."""
    wanted = _OF_GENERATORS if section in ("captioner", "image_generator") else _OF_ENCODERS
    for what, held, names in (
        (kind, chosen, wanted),
        (f"{kind}.Settings", settings, _OF_SETTINGS),
    ):
        lacking = [name for name in names if not hasattr(held, name)]
        if lacking:
            raise ConfigError(f"{section}.kind: {what!r} needs a method `{lacking[0]}`")
    if "kind" not in settings.model_fields:
        raise ConfigError(f"{section}.kind: '{kind}.Settings' needs a field `kind`")


def _by_content(value: Any, revisions: Mapping[str, str]) -> Any:
    """Settings, however deep, with its revision in the place of every model that they name.

    A `revision` beside it says nothing more.
    """
    if isinstance(value, Mapping):
        named = any(isinstance(v, str) and _plain(v) in revisions for v in value.values())
        return {
            field: _by_content(held, revisions)
            for field, held in value.items()
            if not (named and field == "revision")
        }
    if isinstance(value, (list, tuple)):
        return [_by_content(held, revisions) for held in value]
    return revisions.get(_plain(value), value) if isinstance(value, str) else value


def _plain(name: str) -> str:
    return name.removeprefix("local-dir:").removeprefix("hf-hub:")


def _import(section: str, kind: str, registry: Mapping[str, str]) -> type:
    target = registry.get(kind, kind)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        raise ConfigError(
            f"{section}.kind: must be one of {', '.join(registry)}, or package.module:Class;"
            f" got {kind!r}"
        )
    # A class of one's own may lie in the folder where the command was given, as with `python -m`.
    if kind not in registry and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{section}.kind: {kind!r} can't be imported: {error}") from None
