"""Scenes to learn from, drawn once and kept: each planned once and drawn in both training styles.

Beside the things of the target that are not held back stand a hundred others, so that the eyes
learn what a thing looks like in general. Every sprite comes in variants: turned, stretched, in
other hues; its colour is told as it then is.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.scenes.names import load_concepts
from examples.scenes.scenes import Composer, Scene
from examples.scenes.sources import WORK
from examples.scenes.sprites import TRAINING_STYLES, cut_out
from examples.scenes.things import (
    GROUNDS,
    Sprite,
    Thing,
    load_sprites,
    load_things,
    share,
    told_colour,
)

logger = logging.getLogger(__name__)

SCENES = 12_000
VARIANTS = 6
SPRITE_SIDE = 36
# How often one of the other things is drawn, relative to one of the target's.
OTHERS = 0.5
# How many of the drawings beyond the target's are learned from.
OTHERS_SHARE = 0.25
CELLS = 8
# Least share of a cell's pixels that a thing must cover to be what the cell shows.
COVERS = 0.3
# Drawings that differ from others by little, or that hardly stand on a ground.
LEFT_OUT = ("time", "place-map", "money", "mail", "book-paper", "office", "sound", "phone")
CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")


def content_words(text: str) -> set[str]:
    """Split a name into words, without the small ones."""
    cleaned = "".join(c if c.isalnum() else " " for c in text.lower())
    return {
        word for word in cleaned.split() if len(word) > 2 and word not in ("with", "and", "the")
    }


@lru_cache(maxsize=2)
def training_things(work: Path = WORK) -> tuple[Thing, ...]:
    """Give what may be learned from: the target's things that are not held back, then others.

    Others have no word in common with the name of a thing that is held back.
    """
    things = load_things()
    known = tuple(thing for thing in things if not thing.novel)
    taken = {thing.emoji for thing in things}
    held_back: set[str] = set()
    for thing in things:
        if thing.novel:
            held_back |= content_words(thing.name) | content_words(thing.emoji)
            held_back |= content_words(thing.logged)
    own = {word for thing in things for word in content_words(thing.logged)}
    others = []
    for concept in load_concepts(work):
        spoken = content_words(concept.name)
        left_out = concept.category not in CATEGORIES or concept.subcategory in LEFT_OUT
        left_out = left_out or share(f"other {concept.name}") >= OTHERS_SHARE
        if (
            left_out
            or len(concept.name.split()) > 2
            or concept.name in taken
            or spoken & held_back
            or spoken & own
        ):
            continue
        if not concept.name.replace(" ", "").isalpha() or not concept.name.isascii():
            continue
        first = int(len(GROUNDS) * share(f"ground {concept.name}"))
        grounds = (GROUNDS[first], GROUNDS[(first + 3) % len(GROUNDS)])
        others.append(Thing(concept.name, concept.name, grounds, concept.name))
    return known + tuple(others)


def vary(thing: Thing, sprite: Sprite, rng: np.random.Generator) -> Sprite:
    """Turn, stretch and recolour a sprite; a thing whose name says a colour keeps its hue."""
    picture = sprite.picture
    turned = picture.rotate(float(rng.uniform(-14, 14)), Image.Resampling.BICUBIC, expand=True)
    wide = float(np.exp(rng.uniform(-0.15, 0.15)))
    size = (max(1, round(turned.width * wide)), turned.height)
    drawn = np.asarray(cut_out(turned.resize(size), SPRITE_SIDE)).astype(np.float32)
    alpha, colours = drawn[..., 3:], drawn[..., :3] / 255
    named = sprite.colour is None and told_colour(thing, picture) is None
    angle = rng.normal(0, 0.45) if not named and rng.random() < 0.5 else rng.normal(0, 0.08)
    third, root = np.full((3, 3), 1 / 3), np.sqrt(3)
    cross = np.asarray([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / root
    turn = third + (np.eye(3) - third) * np.cos(angle) + cross * np.sin(angle)
    saturation = np.exp(rng.normal(0, 0.25))
    mix = third + saturation * (turn - third)
    colours = np.clip(colours @ mix.T, 0, 1) ** np.exp(rng.normal(0, 0.2))
    varied = np.concatenate([255 * colours, alpha], axis=-1).round().astype(np.uint8)
    changed = Image.fromarray(varied, "RGBA")
    return Sprite(changed, told_colour(thing, changed))


def vary_all(thing: Thing, sprites: Sequence[Sprite], variants: int) -> list[tuple[Sprite, ...]]:
    """Vary a thing's sprite of each style; chance is seeded by its name."""
    rng = np.random.default_rng([1, int(2**32 * share(f"vary {thing.name}"))])
    return [tuple(vary(thing, sprite, rng) for _ in range(variants)) for sprite in sprites]


def training_composers(
    work: Path = WORK, variants: int = VARIANTS, processes: int = 1
) -> list[Composer]:
    """Give a composer for each training style, on the same things."""
    things = training_things(work)
    styles = [load_sprites(things, style, work) for style in TRAINING_STYLES]
    common = [thing for thing in things if all(thing in sprites for sprites in styles)]
    known = set(load_things())
    chance = {thing: 1.0 if thing in known else OTHERS for thing in common}
    given = [(thing, [sprites[thing][0] for sprites in styles], variants) for thing in common]
    with spread(processes) as apply:
        varied = apply(vary_all, given)
    return [
        Composer({thing: by[style] for thing, by in zip(common, varied, strict=True)}, chance)
        for style in range(len(styles))
    ]


@contextmanager
def spread(processes: int) -> Iterator[Callable[[Callable[..., Any], Sequence[Any]], list[Any]]]:
    """Give what applies a function to tuples of arguments, in order, in so many processes."""
    if processes < 2:
        yield lambda function, given: [function(*one) for one in given]
        return
    with get_context("fork").Pool(processes) as pool:
        yield lambda function, given: pool.starmap(function, given, chunksize=4)


def cells_of(owners: np.ndarray, cells: int) -> np.ndarray:
    """Give which group most of each cell shows, -1 where hardly any of it.

    Parameters
    ----------
    owners : int array of shape (side, side)
        Group of each pixel, -1 for the ground.

    Returns
    -------
    int8 array of shape (cells, cells)
    """
    step = len(owners) // cells
    blocks = owners.reshape(cells, step, cells, step)
    counts = np.stack([(blocks == k).sum((1, 3)) for k in range(max(1, owners.max() + 1))])
    best = counts.argmax(0)
    enough = counts.max(0) >= COVERS * step * step
    return np.where(enough, best, -1).astype(np.int8)


@dataclass(frozen=True)
class Pool:
    """Drawn scenes; row i of the second half is the scene of row i of the first, in the other style.

    Attributes
    ----------
    things : tuple of Thing
        What the scenes are made of; their positions are the labels.
    scenes : list of Scene, of length 2 n
    pictures : uint8 array of shape (2 n, 64, 64, 3)
    cells : int16 array of shape (2 n, 8, 8)
        Position of the thing that each cell shows; -1 for the ground.
    """

    things: tuple[Thing, ...]
    scenes: list[Scene]
    pictures: np.ndarray
    cells: np.ndarray


def draw_scenes(
    half: int, plans: Sequence[tuple[int, Scene]]
) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    """Draw planned scenes in one style; chance is seeded by the style and the scene's number.

    Returns
    -------
    scenes : list of Scene
    pictures : uint8 array of shape (n, 64, 64, 3)
    cells : int16 array of shape (n, 8, 8)
    """
    composer = COMPOSERS[half]
    place = {thing: i for i, thing in enumerate(composer.sprites)}
    scenes, pictures, cells = [], [], []
    for number, plan in plans:
        rng = np.random.default_rng([2, half, number])
        scene = composer.cast(plan, rng)
        picture, owners = composer.draw(scene, rng)
        labels = np.asarray([place[group.thing] for group in scene.groups] + [-1], np.int16)
        scenes.append(scene)
        pictures.append(picture)
        cells.append(labels[cells_of(owners, CELLS)])
    return scenes, np.stack(pictures), np.stack(cells)


# What `draw_scenes` draws with; processes that draw are forked and find it here.
COMPOSERS: list[Composer] = []


def load_pool(work: Path, count: int = SCENES, processes: int = 1) -> Pool:
    """Draw the pool in so many processes, or read what lies in the work folder."""
    folder = work / "pool" / str(count)
    if not (folder / "scenes.pickle").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        COMPOSERS[:] = training_composers(work, VARIANTS if count >= 1000 else 1, processes)
        things = tuple(COMPOSERS[0].sprites)
        rng = np.random.default_rng(2)
        plans = [(number, COMPOSERS[0].plan(rng)) for number in range(count)]
        parts = [plans[first : first + 100] for first in range(0, count, 100)]
        with spread(processes) as apply:
            drawn = apply(draw_scenes, [(half, part) for half in range(2) for part in parts])
        COMPOSERS.clear()
        scenes = [scene for part in drawn for scene in part[0]]
        np.save(folder / "pictures.npy", np.concatenate([part[1] for part in drawn]))
        np.save(folder / "cells.npy", np.concatenate([part[2] for part in drawn]))
        beside = folder / "scenes.new"
        beside.write_bytes(pickle.dumps((things, scenes)))
        beside.rename(folder / "scenes.pickle")
        logger.info("pool: %d scenes of %d things", count, len(things))
    things, scenes = pickle.loads((folder / "scenes.pickle").read_bytes())
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    return Pool(things, scenes, pictures, np.load(folder / "cells.npy"))
