"""What rows depend on besides their content, as digests: when one changes, its rows are redone."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from generators.base import needs_of
from kb.embeddings import MODALITIES
from pipeline.config.config import Config
from pipeline.dataset.schema import SCHEMA_VERSION
from pipeline.ledger.comparison import ATTEMPTS, PASSING
from pipeline.models.components import Component
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError


def row_dependencies(
    config: Config,
    identity: Callable[[Component], dict[str, Any]],
    knowledge_version: Callable[[bool], str],
    halves: Collection[str] = MODALITIES,
) -> dict[str, dict[str, str]]:
    """What rows depend on besides their content: by kind, a digest by section of the config.

    Parameters
    ----------
    config
    identity
        What a component's output depends on.
    knowledge_version
        The version of the knowledge base on disk; of its mapping alone when called with True.
    halves
        The missing halves that it is asked of.

    Returns
    -------
    dict
        Kinds are the missing half, "image" or "text", where it has a generator, and `PASSING` for
        rows that pass through.
    """
    schema = {"schema": str(SCHEMA_VERSION)}
    found = {PASSING: schema}
    for missing in (half for half in config.made if half in halves):
        half = "caption" if missing == "text" else "image"
        component = config.generator_component(missing)
        knowledge, needs = config.knowledge_base.identity(), needs_of(component.settings)
        grounded = any(config.generation.grounded_of(missing, needs))
        own: dict[str, Any] = {
            "run.seed": config.run.seed,
            "encoder": identity(config.encoder_component()),
            # Without examples nothing is asked of it but what the missing half may be like.
            "knowledge_base": knowledge if grounded else {"mapping": knowledge["mapping"]},
            "generation": config.generation.identity(missing, needs),
            component.section: identity(component),
            f"selection.{half}": getattr(config.selection, half).identity(),
        }
        if config.run.on_kb_change == "redo":
            own["content of the knowledge base"] = knowledge_version(not grounded)
        found[missing] = {
            **schema,
            ATTEMPTS: str(config.generation.attempts),
            **{
                name: digest(json.dumps(value, sort_keys=True, default=str))[:16]
                for name, value in own.items()
            },
        }
    return found


def check_planned(
    config: Config,
    identity: Callable[[Component], dict[str, Any]],
    knowledge_version: Callable[[bool], str],
    missing: str | None,
    planned: Mapping[str, str],
) -> None:
    """Refuse rows that were planned under other settings than a worker has: theirs are recorded.

    Parameters
    ----------
    config, identity, knowledge_version
        The worker's, as of `row_dependencies`.
    missing
        The half that the rows lack; None for those that pass through.
    planned
        What they depend on, by section, as the run has it.

    Raises
    ------
    ConfigError
        The config was changed since, or a model or the knowledge base is another one here.
    """
    halves = [] if missing is None else [missing]
    found = row_dependencies(config, identity, knowledge_version, halves)
    own = found.get(missing or PASSING, found[PASSING])
    other = [n for n in [*planned, *own] if planned.get(n) != own.get(n)]
    if other:
        raise ConfigError(
            f"{other[0]}: is another one for this worker than when the run was planned; it takes the"
            " same config and models everywhere, unchanged until it ends"
        )
