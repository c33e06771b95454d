"""A candidate held to the contract of `generators.base`, and made such as can be judged and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from generators.base import (
    Candidate,
    CaptionRequest,
    Dropped,
    ImageRequest,
    storable,
    well_formed,
)
from pipeline.dataset.decoding import MAX_PIXELS, to_rgb

# No caption of a picture is longer, and what judges it takes seconds for a megabyte.
MOST_CHARACTERS = 100_000


class BrokenContract(ValueError):
    """An answer is none of those that a generator may give."""


def sound(request: CaptionRequest | ImageRequest, candidate: Any) -> Candidate:
    """A candidate as it can be judged and kept.

    Raises
    ------
    BrokenContract
        It is none, or not of this request.
    """
    if not isinstance(candidate, Candidate):
        raise BrokenContract(f"gave {kind_of(candidate)} for a candidate")
    seed = candidate.seed
    if not isinstance(seed, (int, np.integer)) or int(seed) not in request.seeds:
        raise BrokenContract(f"gave a candidate with the seed {seed!r}, which was not asked for")
    if not isinstance(candidate.prompt, str):
        raise BrokenContract(
            f"gave a candidate whose prompt is {kind_of(candidate.prompt)}, no text"
        )
    _check_said(candidate)
    _check_examples(request, candidate)
    text, image = candidate.text, candidate.image
    wanted, other = (text, image) if isinstance(request, CaptionRequest) else (image, text)
    half, kind = ("text", str) if isinstance(request, CaptionRequest) else ("picture", Image.Image)
    if not isinstance(wanted, kind | None):
        raise BrokenContract(f"gave {kind_of(wanted)} for a {half}")
    if other is not None:
        raise BrokenContract(f"gave {kind_of(other)} beside the {half} that was asked for")
    if text is not None and len(text) > MOST_CHARACTERS:
        told = f"{len(text):,} characters; {MOST_CHARACTERS:,} are the most that are judged"
        raise BrokenContract(f"gave a text of {told}")
    plain = _plain(image)
    notes = tuple(candidate.notes)
    if image is not None and plain is not None and plain is not image:
        notes += (f"the picture came in mode {image.mode}, and was converted to {plain.mode}",)
    return storable(
        replace(
            candidate,
            seed=int(seed),
            image=plain,
            notes=notes,
            shown=tuple(candidate.shown),
            dropped=tuple(candidate.dropped),
        )
    )


def _check_said(candidate: Candidate) -> None:
    notes = candidate.notes
    if not isinstance(candidate.revision, str | None):
        raise BrokenContract(f"gave a candidate whose revision is {kind_of(candidate.revision)}")
    if not isinstance(notes, (tuple, list)) or not all(isinstance(note, str) for note in notes):
        raise BrokenContract("gave a candidate whose notes are no tuple of texts")


def _check_examples(request: CaptionRequest | ImageRequest, candidate: Candidate) -> None:
    """What a candidate says of examples is recorded: each is one of those that were handed over, and
    was shown or left out, once."""
    given = {example.id for example in request.examples}
    shown, dropped = candidate.shown, candidate.dropped
    if not isinstance(shown, (tuple, list)) or not isinstance(dropped, (tuple, list)):
        raise BrokenContract("gave a candidate whose shown or dropped examples are no tuple")
    for one in dropped:
        if not isinstance(one, Dropped) or not isinstance(one.reason, str):
            raise BrokenContract(f"gave {kind_of(one)} for a dropped example and its reason")
    named = [("was shown", name) for name in shown] + [("left out", one.id) for one in dropped]
    seen: set[str] = set()
    for said, name in named:
        if not isinstance(name, str) or name not in given:
            raise BrokenContract(
                f"gave a candidate that says that it {said} example {name!r}, which was not given"
            )
        if name in seen:
            raise BrokenContract(f"gave a candidate that tells twice of example {name!r}")
        seen.add(name)


def _plain(image: Image.Image | None) -> Image.Image | None:
    """A picture of 8 bits a sample, as files hold it; transparency stays."""
    if image is None or 0 in image.size:
        return image
    if image.width * image.height > MAX_PIXELS:
        told = (
            f"{image.width:,} x {image.height:,} pixels; {MAX_PIXELS:,} are the most that are read"
        )
        raise BrokenContract(f"gave a picture of {told}")
    try:
        image.load()
        return image if image.mode in ("RGB", "RGBA") else to_rgb(image)
    except Exception as error:
        raise BrokenContract(f"gave a picture whose reading {told_of(error)}") from None


def kind_of(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def told_of(error: Exception) -> str:
    return str(error) if isinstance(error, BrokenContract) else f"raised {named(error)}"


def named(error: Exception) -> str:
    """An error's class and what it says, in one line; of a class that can't say it, the class."""
    try:
        said = " ".join(well_formed(str(error)).split())
    except Exception:  # noqa: BLE001  the first error is told
        said = ""
    return f"{type(error).__name__}: {said or 'no message'}"
