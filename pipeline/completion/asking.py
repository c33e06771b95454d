"""What a generator is asked for a row, and its answers to that as one."""

from __future__ import annotations

from collections.abc import Sequence

from generators.base import CaptionRequest, Example, Generated, ImageRequest, Needs
from generators.prompts import joined
from kb.embeddings import Modality
from pipeline.completion.row import Row
from pipeline.models.components import Component


def requests_of(
    row: Row, missing: Modality, needs: Needs, seeds: tuple[int, ...], grounded: int
) -> list[CaptionRequest | ImageRequest]:
    """What is asked for a row: candidates from its examples, and some without, if so set.

    Nothing, where there is no example and the generator makes nothing without one.

    Parameters
    ----------
    row : Row
    missing : {"image", "text"}
    needs : Needs
        What the generator takes of an example.
    seeds : tuple of int
        One for each candidate.
    grounded : int
        So many of them, the first ones, are drawn from the examples.
    """
    examples = tuple(
        Example(
            example.pair.id,
            example.caption if needs.text else "",
            example.picture if needs.image else None,
            example.pair.encoded if needs.image else None,
        )
        for example in row.examples
    )
    if needs.example and not examples:
        return []
    first = grounded if examples else 0
    observed = row.observed
    return [
        CaptionRequest(row.id, observed, shown, drawn, row.file)
        if missing == "text"
        else ImageRequest(row.id, joined(observed), shown, drawn)
        for shown, drawn in ((examples, seeds[:first]), ((), seeds[first:]))
        if drawn
    ]


def joined_answer(row: Row, component: Component, asked: Sequence[Generated]) -> Generated:
    """The answers to a row's requests as one, with the error of any.

    Parameters
    ----------
    row : Row
    component : Component
        What answered.
    asked : sequence of Generated
        One for each of `requests_of`.
    """
    if not asked:
        why = row.dropped[0][1] if row.dropped else "none was retrieved"
        return Generated(row.id, error=f"no example, and {component.kind} needs one: {why}")
    candidates = [candidate for answer in asked for candidate in answer.candidates]
    errors = [answer.error for answer in asked if answer.error is not None]
    return Generated(row.id, tuple(candidates), errors[0] if errors else None)
