"""The contract between whoever asks for a missing half and the models that make it.

A generator takes requests (the observed half of a row and the retrieved pairs that ground it) and
returns, for each request in order, one candidate for each seed. Randomness comes from the seeds alone.
Its settings say what it takes of an example, and each candidate says which ones it was shown: whoever
asks records that, and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

SEED_BITS = 63
# Halves of a pair of surrogates: JSON can name them alone, and no file of text can hold them.
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a generator takes of an example; what it doesn't take is neither fetched nor handed over.

    Parameters
    ----------
    text, image : bool
        Whether it takes the caption, and whether it takes the picture. One that takes neither is
        given no examples.
    example : bool
        Whether it makes nothing without an example: then it is asked only with one.
    side : int or None
        Longest side in pixels that a picture, a row's or an example's, is of use at; larger ones may
        be handed over shrunk to it (`generators.pictures.held`). None: as they are.
    """

    text: bool = True
    image: bool = True
    example: bool = False
    side: int | None = None

    @property
    def any(self) -> bool:
        """Whether examples are of use at all."""
        return self.text or self.image


def needs_of(settings: Any) -> Needs:
    """What a generator with these settings takes of an example; both halves where it doesn't say."""
    asked = getattr(settings, "needs", None)
    return Needs() if asked is None else asked()


@dataclass(frozen=True, slots=True)
class Example:
    """A retrieved pair that grounds a generation.

    Parameters
    ----------
    id : str
        Id of the pair in the knowledge base.
    text : str
        Its caption.
    image : PIL.Image.Image or None
        Its picture; None where it isn't needed.
    file : bytes or None
        What that was decoded from, where it is at hand.
    """

    id: str
    text: str
    image: Image | None = None
    file: bytes | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """An example that was given but not shown to the model, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """Ask for ``len(seeds)`` captions of ``image``, with the best example first.

    ``numbers`` are those of the candidates among all that the row's attempt is to have from these
    examples or without any, of which others may have been asked for before: 0, 1, ... where they are
    left out. ``file`` is what the image was decoded from, where that is at hand.
    """

    row_id: str
    image: Image
    examples: tuple[Example, ...]
    seeds: tuple[int, ...]
    file: bytes | None = None
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Ask for ``len(seeds)`` images of ``text``, with the best example first.

    ``text`` is all that the row says: of several captions, all of them (`generators.prompts.joined`).
    ``numbers`` are as in `CaptionRequest`.
    """

    row_id: str
    text: str
    examples: tuple[Example, ...]
    seeds: tuple[int, ...]
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One generated half.

    ``text`` (of a captioner) or ``image`` (of an image generator) is None only when the model gave
    nothing that can be held as such, and then the last note says why: ``"nan: ..."`` for values that
    are not finite, ``"refused: ..."`` for a service that declined the content.

    Parameters
    ----------
    seed : int
        The seed that it was drawn with.
    prompt : str
        The prompt as the model got it, after any cut.
    text, image
        The generated half; the other one is None.
    shown : tuple of str
        Ids of the examples that the model was shown for it, in the order of its prompt. None are
        recorded as having grounded it but these.
    dropped : tuple of Dropped
        Examples of the request that it was not shown; each is told of once, here or in ``shown``.
    encoded : bytes or None
        The file that ``image`` was read back from, where whoever asked has written it; generators
        leave it out.
    revision : str or None
        Which version of the model made it, where a server says so with its answer.
    notes : tuple of str
        What was done on the way that a reader of the result should know.
    """

    seed: int
    prompt: str
    text: str | None = None
    image: Image | None = None
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    encoded: bytes | None = None
    revision: str | None = None


def storable(candidate: Candidate) -> Candidate:
    """The candidate as it can be kept: in text that is UTF-8, and with pixels in its picture.

    What no file can hold is replaced or left out, and a note says so.
    """
    notes = list(candidate.notes)
    if candidate.text is not None and well_formed(candidate.text) != candidate.text:
        notes.append("characters that are none (lone surrogates) were replaced")
    image = candidate.image
    if image is not None and 0 in image.size:
        notes.append(f"empty: the picture has {image.width} x {image.height} pixels")
        image = None
    return replace(
        candidate,
        prompt=well_formed(candidate.prompt),
        text=None if candidate.text is None else well_formed(candidate.text),
        image=image,
        notes=tuple(well_formed(note) for note in notes),
        dropped=tuple(replace(one, reason=well_formed(one.reason)) for one in candidate.dropped),
        revision=None if candidate.revision is None else well_formed(candidate.revision),
    )


def well_formed(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 can't hold.

    Examples
    --------
    >>> well_formed("a \\ud800 hat") == "a \\ufffd hat"
    True
    """
    return _LONE_SURROGATES.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to one request: a candidate for each seed in order.

    Where some could not be made ``error`` says why, and ``candidates`` holds the others.
    """

    row_id: str
    candidates: tuple[Candidate, ...] = ()
    error: str | None = None


class GeneratorSettings(Protocol):
    """What every generator's ``Settings`` class offers beside its fields."""

    kind: Any

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role -> (model id or local folder, revision) of every model that is loaded."""
        ...

    def identity(self) -> dict[str, Any]:
        """The settings that change the output; equal identities give equal candidates."""
        ...

    def needs(self) -> Needs:
        """What is taken of an example. A class without this is handed both halves."""
        ...


class Captioner(Protocol):
    """Writes captions of images. Constructed as ``cls(settings, paths)``, which loads nothing."""

    def __init__(self, settings: Any, paths: Mapping[str, Path]) -> None: ...

    def load(self) -> None:
        """Load the model; does nothing when it is loaded. ``generate`` calls it on first use."""
        ...

    def close(self) -> None:
        """Free what ``load`` took."""
        ...

    def memory(self) -> int:
        """Bytes that the loaded weights take; 0 when nothing is loaded."""
        ...

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """Caption each request's image, one answer a request in order."""
        ...


class ImageGenerator(Protocol):
    """Draws images of texts. Constructed as ``cls(settings, paths)``, which loads nothing."""

    def __init__(self, settings: Any, paths: Mapping[str, Path]) -> None: ...

    def load(self) -> None:
        """Load the model; does nothing when it is loaded. ``generate`` calls it on first use."""
        ...

    def close(self) -> None:
        """Free what ``load`` took."""
        ...

    def memory(self) -> int:
        """Bytes that the loaded weights take; 0 when nothing is loaded."""
        ...

    def generate(self, requests: Sequence[ImageRequest]) -> list[Generated]:
        """Draw each request's text, one answer a request in order."""
        ...


def derive_seed(run_seed: int, row_id: str, candidate: int, attempt: int) -> int:
    """Seed of one candidate: a digest of all that tells it apart from the others.

    Parameters
    ----------
    run_seed : int
        Seed of the run.
    row_id : str
        Id of the row; any text.
    candidate : int
        Number of the candidate within the row, from 0.
    attempt : int
        Number of the round, from 1.

    Returns
    -------
    int
        0 <= seed < 2**63, which torch and NumPy both take.

    Examples
    --------
    >>> derive_seed(0, "row-1", 0, 1) == derive_seed(0, "row-1", 0, 1)
    True
    >>> derive_seed(0, "row-1", 0, 1) == derive_seed(0, "row-1", 1, 1)
    False
    """
    # The id goes last: numbers hold no ":", so no two different quadruples read the same.
    message = f"{run_seed}:{candidate}:{attempt}:{row_id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(message, digest_size=8).digest()
    return int.from_bytes(digest, "little") & ((1 << SEED_BITS) - 1)
