"""Which of the examples that were given a generator shows its model, and why it drops the others."""

from __future__ import annotations

from collections.abc import Sequence

from generators.base import Dropped, Example, Needs

NO_CAPTION = "no caption"
NO_PICTURE = "no picture"
NO_ROOM = "no room in the prompt"
NOT_USED = "the generator takes no examples"


def usable_examples(
    examples: Sequence[Example], needs: Needs, most: int | None = None
) -> tuple[list[Example], tuple[Dropped, ...]]:
    """The examples that have what is needed of them, best first, and the others with the reason.

    Parameters
    ----------
    examples : sequence of Example
        Best first.
    needs : Needs
        The halves that each must have.
    most : int or None
        So many are shown at most; None for all.

    Examples
    --------
    >>> pairs = [Example("a", " "), Example("b", "a hat"), Example("c", "a cat")]
    >>> usable, dropped = usable_examples(pairs, Needs(image=False), most=1)
    >>> [one.id for one in usable], [(one.id, one.reason) for one in dropped]
    (['b'], [('a', 'no caption'), ('c', 'beyond the first 1')])
    """
    usable: list[Example] = []
    dropped: list[Dropped] = []
    for example in examples:
        reason = _lacks(example, needs)
        if reason is None and most is not None and len(usable) >= most:
            reason = f"beyond the first {most}"
        if reason is None:
            usable.append(example)
        else:
            dropped.append(Dropped(example.id, reason))
    return usable, tuple(dropped)


def _lacks(example: Example, needs: Needs) -> str | None:
    if not needs.any:
        return NOT_USED
    if needs.image and example.image is None:
        return NO_PICTURE
    return NO_CAPTION if needs.text and not example.text.strip() else None
