"""What rows depend on besides their content, as digests: when one changes, its rows are redone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from generators.base import needs_of
from pipeline.config.config import Config
from pipeline.dataset.schema import SCHEMA_VERSION
from pipeline.ledger.comparison import ATTEMPTS, PASSING
from pipeline.models.components import Component
from pipeline.storage.digests import digest


def row_dependencies(
    config: Config,
    identity: Callable[[Component], dict[str, Any]],
    knowledge_version: Callable[[bool], str],
) -> dict[str, dict[str, str]]:
    """What rows depend on besides their content: by kind, a digest by section of the config.

    Parameters
    ----------
    config
    identity
        What a component's output depends on.
    knowledge_version
        The version of the knowledge base on disk; of its mapping alone when called with True.

    Returns
    -------
    dict
        Kinds are the missing half, "image" or "text", where it has a generator, and `PASSING` for
        rows that pass through.
    """
    schema = {"schema": str(SCHEMA_VERSION)}
    found = {PASSING: schema}
    for missing in config.made:
        half = "caption" if missing == "text" else "image"
        component = config.generator_component(missing)
        knowledge, needs = config.knowledge_base.identity(), needs_of(component.settings)
        grounded = config.generation.grounded_of(missing, needs) > 0
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
