"""Faults that make a candidate unfit to be judged, each with its name.

Generators fail in known ways: a caption that is empty, repeats the prompt or runs in a loop; a
picture that is one flat colour, black (a safety filter, a half-precision VAE) or not a number.
Such candidates are left out before any score is taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from selection.luma import opaque
from selection.words import said, words

_LABEL = re.compile(r"(?:^|(?<=[\s.!?]))([^\s:.!?]+(?: \d+)?):\s*$")
_LONGEST_PHRASE = 12
_ECHOED_WORDS = 4


def caption_fault(text: str, prompt: str = "", references: Sequence[str] = ()) -> str | None:
    """What makes a caption unfit, if anything.

    Parameters
    ----------
    text : str
        The caption, without the prompt.
    prompt : str
        The prompt that it answers; "" when there was none.
    references : sequence of str
        Captions that stand in the prompt as examples. To repeat one of them whole is no echo:
        two pictures may well deserve the same caption.

    Returns
    -------
    str or None
        "empty" (no letter, digit or symbol), "echo" (the prompt's opening or its label again),
        "loop" (a phrase repeated in a row), or None.

    Examples
    --------
    >>> caption_fault("a hat on top of a hat on top of")
    'loop'
    >>> caption_fault("a hat on top of a suitcase") is None
    True
    """
    if not any(_is_content(character) for character in text):
        return "empty"
    if prompt and _is_echo(text, prompt, references):
        return "echo"
    if _is_loop(words(text)):
        return "loop"
    return None


def image_fault(image: Any | None) -> str | None:
    """What makes a picture unfit, if anything.

    Parameters
    ----------
    image : PIL.Image.Image or ndarray of shape [h, w] or [h, w, channels], or None
        Integer arrays are 0..255, float arrays 0..1. Transparent pixels count as white.

    Returns
    -------
    str or None
        "empty" (None), "nan" (a value that is not finite), "black" (no channel above 8 of 255 anywhere),
        "blank" (every channel within a standard deviation of 1 of 255), or None.

    Raises
    ------
    ValueError
        If the picture has no pixels or an array of another shape.
    """
    if image is None:
        return "empty"
    if isinstance(image, np.ndarray) or image.mode == "F":
        array = _pixels(np.asarray(image))
        if array.size == 0:
            raise ValueError(f"image must have pixels; got shape {array.shape}")
        if not np.isfinite(array).all():
            return "nan"
        brightest = float(array.max())
        spread = float(array.reshape(-1, array.shape[-1]).std(axis=0, dtype=np.float64).max())
    else:
        from PIL import ImageStat

        if 0 in image.size:
            raise ValueError(f"image must have pixels; got size {image.size}")
        # Pillow's histogram takes 3 ms where an array of a megapixel takes 50.
        statistics = ImageStat.Stat(opaque(image))
        brightest = max(high for _, high in statistics.extrema)
        spread = max(statistics.stddev)
    if brightest <= 8.0:
        return "black"
    return "blank" if spread < 1.0 else None


def duplicates(items: Sequence[Any]) -> list[int | None]:
    """For each item the number of the first one that it repeats.

    Texts are the same when their words and symbols are (case, spacing and punctuation aside);
    pictures when size and pixels are.

    Parameters
    ----------
    items : sequence of str, PIL.Image.Image, ndarray or None

    Returns
    -------
    list of int or None
        None for a first occurrence.

    Examples
    --------
    >>> duplicates(["A red hat.", "a blue hat", "a red hat"])
    [None, None, 0]
    """
    seen: dict[Any, int] = {}
    result: list[int | None] = []
    for position, item in enumerate(items):
        first = seen.setdefault(_content(item), position)
        result.append(None if first == position else first)
    return result


def _is_content(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LN" or category == "So"


def _is_echo(text: str, prompt: str, references: Sequence[str]) -> bool:
    spoken = words(text)
    if not spoken or any(spoken == words(reference) for reference in references):
        return False
    # Of a conversation the last line is asked of this caption, whatever stands before.
    for asked in (words(prompt), words(prompt.rstrip().rpartition("\n")[2])):
        opening = asked[:_ECHOED_WORDS]
        if len(opening) > 1 and spoken[: len(opening)] == opening:
            return True
        if len(spoken) > 1 and spoken == asked[: len(spoken)]:
            return True
    # "Caption 2:" at the end of the prompt is a label; the model must not write it, or the next.
    label = _LABEL.search(prompt)
    if label is None:
        return False
    pattern = re.sub(r"\d+", r"\\d+", re.escape(label.group(1)))
    return re.search(rf"(?<!\w){pattern}\s*:", text, re.IGNORECASE) is not None


def _is_loop(sequence: list[str]) -> bool:
    for length in range(1, _LONGEST_PHRASE + 1):
        # People do write "no no no" and "New York, New York"; nobody repeats four words at once.
        repeats = 2 if length >= 4 else 3 if length >= 2 else 4
        run = 0
        for position in range(length, len(sequence)):
            run = run + 1 if sequence[position] == sequence[position - length] else 0
            if run >= length * (repeats - 1):
                return True
    return False


def _pixels(image: np.ndarray) -> np.ndarray:
    """Float pixels [h, w, channels] on the scale 0..255."""
    if image.ndim not in (2, 3):
        raise ValueError(f"image must be [h, w] or [h, w, channels]; got shape {image.shape}")
    scale = 255.0 if np.issubdtype(image.dtype, np.floating) else 1.0
    array = image.astype(np.float32) * scale
    array = array[:, :, None] if array.ndim == 2 else array
    if array.shape[2] == 4:
        array = array[:, :, :3] * (array[:, :, 3:] / 255.0) + 255.0 - array[:, :, 3:]
    return array


def _content(item: Any) -> Any:
    if item is None:
        return None
    if isinstance(item, str):
        return said(item) or item.strip()
    if isinstance(item, np.ndarray):
        return (item.shape, item.dtype.str, item.tobytes())
    return (item.mode, item.size, item.tobytes())
