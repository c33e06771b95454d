"""Generated pictures as they are written, which is how they are judged.

A lossy format changes a picture a little, and with it its likeness and its NIQE: what is chosen is
chosen among what will be read.
"""

from __future__ import annotations

from dataclasses import replace

from generators.base import Candidate, Generated
from pipeline.dataset.encoding import ImageFormat


def as_written(answer: Generated, format: ImageFormat) -> Generated:
    """An answer whose pictures are as they will be read back, with their bytes.

    Without loss nothing is encoded that is not transparent: that is left to whoever writes the one that
    is chosen.
    """
    return replace(answer, candidates=tuple(_as_written(one, format) for one in answer.candidates))


def _as_written(candidate: Candidate, format: ImageFormat) -> Candidate:
    if candidate.image is None:
        return candidate
    image, data = format.written(candidate.image)
    return replace(candidate, image=image, encoded=data)


def encoded(candidate: Candidate, format: ImageFormat) -> bytes:
    """The bytes of a candidate's picture, which must have one."""
    assert candidate.image is not None
    return candidate.encoded or format.encode(candidate.image)
