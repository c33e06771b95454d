"""Scenes to learn from, drawn once and kept: each planned once and drawn in both training styles.

Beside the things of the target that are not held back stand a hundred others, so that the eyes
learn what a thing looks like in general. Every sprite comes in variants: turned, stretched, in
other hues; its colour is told as it then is.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from examples.scenes.grounds import SIDE
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


def training_composers(work: Path = WORK, variants: int = VARIANTS) -> list[Composer]:
    """Give a composer for each training style, on the same things."""
    things = training_things(work)
    styles = [load_sprites(things, style, work) for style in TRAINING_STYLES]
    common = [thing for thing in things if all(thing in sprites for sprites in styles)]
    known = set(load_things())
    chance = {thing: 1.0 if thing in known else OTHERS for thing in common}
    rng = np.random.default_rng(1)
    result = []
    for sprites in styles:
        varied = {
            thing: tuple(vary(thing, sprites[thing][0], rng) for _ in range(variants))
            for thing in common
        }
        result.append(Composer(varied, chance))
    return result


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


def load_pool(work: Path, count: int = SCENES) -> Pool:
    """Draw the pool, or read what lies in the work folder."""
    folder = work / "pool" / str(count)
    if not (folder / "scenes.pickle").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        composers = training_composers(work, VARIANTS if count >= 1000 else 1)
        things = tuple(composers[0].sprites)
        place = {thing: i for i, thing in enumerate(things)}
        rng = np.random.default_rng(2)
        scenes: list[Scene] = []
        shape = (2 * count, SIDE, SIDE, 3)
        pictures = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, shape)
        cells = np.full((2 * count, CELLS, CELLS), -1, np.int16)
        plans = [composers[0].plan(rng) for _ in range(count)]
        for half, composer in enumerate(composers):
            for i, plan in enumerate(plans):
                scene = composer.cast(plan, rng)
                picture, owners = composer.draw(scene, rng)
                row = half * count + i
                pictures[row] = picture
                labels = np.asarray([place[group.thing] for group in scene.groups] + [-1])
                cells[row] = labels[cells_of(owners, CELLS)]
                scenes.append(scene)
        pictures.flush()
        np.save(folder / "cells.npy", cells)
        beside = folder / "scenes.new"
        beside.write_bytes(pickle.dumps((things, scenes)))
        beside.rename(folder / "scenes.pickle")
        logger.info("pool: %d scenes of %d things", count, len(things))
    things, scenes = pickle.loads((folder / "scenes.pickle").read_bytes())
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    return Pool(things, scenes, pictures, np.load(folder / "cells.npy"))
