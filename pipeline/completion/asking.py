"""What a generator is asked for a row, and its answers to that as one."""

from __future__ import annotations

from collections.abc import Sequence

from generators.base import CaptionRequest, Example, Generated, ImageRequest, Needs
from generators.prompts import joined
from kb.embeddings import Modality
from pipeline.completion.row import Row
from pipeline.models.components import Component


def requests_of(
    row: Row,
    missing: Modality,
    needs: Needs,
    numbers: Sequence[int],
    seeds: Sequence[int],
    grounded: Sequence[bool],
) -> list[CaptionRequest | ImageRequest]:
    """What is asked for a row: candidates from its examples, and some without, if so set.

    Nothing, where there is no example and the generator makes nothing without one.

    Parameters
    ----------
    row : Row
    missing : {"image", "text"}
    needs : Needs
        What the generator takes of an example.
    numbers, seeds : sequence of int
        One for each candidate.
    grounded : sequence of bool
        Which of them are drawn from the examples.
    """
    examples = tuple(
        Example(
            example.pair.id,
            example.caption if needs.text else "",
            example.picture if needs.image else None,
            example.pair.encoded if needs.image else None,
        )
        for example in row.grounds
    )
    if needs.example and not examples:
        return []
    parts: dict[bool, dict[int, int]] = {True: {}, False: {}}
    # A second look begins with the best of its own examples.
    first = numbers[0] if row.second_look else 0
    for number, seed, with_them in zip(numbers, seeds, grounded, strict=True):
        parts[with_them and bool(examples)][number - first] = seed
    observed = row.observed
    return [
        CaptionRequest(row.id, observed, shown, tuple(own.values()), row.file, tuple(own))
        if missing == "text"
        else ImageRequest(row.id, joined(observed), shown, tuple(own.values()), tuple(own))
        for shown, own in ((examples, parts[True]), ((), parts[False]))
        if own
    ]


def joined_answer(
    row: Row, component: Component, seeds: Sequence[int], asked: Sequence[Generated]
) -> Generated:
    """The answers to a row's requests as one, in the order of the seeds, with the error of any.

    Parameters
    ----------
    row : Row
    component : Component
        What answered.
    seeds : sequence of int
        As they were handed to `requests_of`.
    asked : sequence of Generated
        One for each of `requests_of`.
    """
    if not asked:
        why = row.dropped[0][1] if row.dropped else "none was retrieved"
        return Generated(row.id, error=f"no example, and {component.kind} needs one: {why}")
    places = {seed: place for place, seed in enumerate(seeds)}
    candidates = [candidate for answer in asked for candidate in answer.candidates]
    candidates.sort(key=lambda candidate: places[candidate.seed])
    errors = [answer.error for answer in asked if answer.error is not None]
    return Generated(row.id, tuple(candidates), errors[0] if errors else None)
