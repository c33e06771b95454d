"""Which of the concepts the target domain of single emoji holds; names are those of the scenes."""

from __future__ import annotations

from examples.scenes.names import Concept, load_concepts, plain

__all__ = ["Concept", "in_target", "load_concepts", "plain"]


def in_target(concept: Concept) -> bool:
    """Tell whether the target domain holds a concept.

    Flags and symbols are left out, and so is what differs from another concept by the sex of a
    figure or by the side it faces alone: one drawing under several names.
    """
    if concept.category in ("Flags", "Symbols") or "facing right" in concept.name:
        return False
    gendered = concept.id.endswith(("-2640-fe0f", "-2642-fe0f"))
    return not gendered and not concept.id.startswith(("1f468-200d", "1f469-200d"))
