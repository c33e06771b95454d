"""The things of the scenes: what they are called, where they are found, which are held back.

`things.csv` lists them. A third, chosen by hash, is never shown to a checkpoint in training nor
named to it. Two thirds of all, chosen by another hash, stand in the target's scenes and the external
base's: the checkpoints' world is wider than the target, but lacks a third of it.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from examples.scenes.names import load_concepts
from examples.scenes.sources import HERE, WORK
from examples.scenes.sprites import colour_of, cut_out, read_drawing

GROUNDS = ("grass", "water", "table", "night", "road", "snow", "sand", "room")
HELD_BACK = 1 / 3
IN_TARGET = 2 / 3
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")


@dataclass(frozen=True)
class Thing:
    """One kind of thing.

    Attributes
    ----------
    name : str
        Plain name, singular.
    emoji : str
        CLDR short name of the drawing.
    grounds : tuple of str
        The grounds that it is found on.
    logged : str
        What the target's domain calls it; `name` for two things in three.
    novel : bool
        Whether no checkpoint's training holds it.
    """

    name: str
    emoji: str
    grounds: tuple[str, ...]
    logged: str
    novel: bool = False


@dataclass(frozen=True)
class Sprite:
    """A thing as one style draws it: the cut-out picture, and its colour where it has a clear one."""

    picture: Image.Image
    colour: str | None


def share(text: str) -> float:
    """Give a number in [0, 1) that the text alone decides, to split and to shuffle by."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_novel(name: str) -> bool:
    """Decide by the head noun, so that green and red apples are held back together."""
    return share(f"held back 0 {name.split()[-1]}") < HELD_BACK


@lru_cache(maxsize=1)
def load_things() -> tuple[Thing, ...]:
    """Read the things of the target domain, in the order of `things.csv`."""
    with (HERE / "things.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Thing(
                name=row["name"],
                emoji=row["emoji"],
                grounds=tuple(row["grounds"].split()),
                logged=row["logged"] or row["name"],
                novel=is_novel(row["name"]),
            )
            for row in csv.DictReader(file)
        )


def target_things() -> tuple[Thing, ...]:
    """Give the things of the target's scenes, in the order of `things.csv`."""
    return tuple(thing for thing in load_things() if share(f"target 1 {thing.name}") < IN_TARGET)


def told_colour(thing: Thing, picture: Image.Image) -> str | None:
    """Give the colour of a sprite that its caption tells; none where the name says one."""
    named = any(word in COLOURS for word in thing.name.split())
    return None if named else colour_of(picture)


def load_sprites(
    things: tuple[Thing, ...], style: str, work: Path = WORK
) -> dict[Thing, tuple[Sprite, ...]]:
    """Cut out every thing that a style draws, in the given order; each has one sprite.

    The colour is left out where the name says one already.
    """
    concepts = {concept.name: concept for concept in load_concepts(work)}
    result = {}
    for thing in things:
        drawing = read_drawing(concepts[thing.emoji], style, work)
        if drawing is None:
            continue
        picture = cut_out(drawing)
        result[thing] = (Sprite(picture, told_colour(thing, picture)),)
    return result
