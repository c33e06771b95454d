"""Compose scenes: a few groups of things on a ground, and where each group stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from examples.scenes.grounds import SIDE, draw_ground
from examples.scenes.sprites import scaled
from examples.scenes.things import Sprite, Thing

# How often a scene has each layout; with it goes which places its groups have.
LAYOUTS = {
    "alone": (0.12, ("anywhere",)),
    "beside": (0.36, ("left", "right")),
    "behind": (0.22, ("back", "front")),
    "three": (0.30, ("back", "left", "right")),
}
PLACES = ("left", "right", "back", "front")
TWO_OF_A_KIND = 0.3
JITTER = 2
VARIANTS = 40


@dataclass(frozen=True)
class Group:
    """One to four things of a kind.

    Attributes
    ----------
    thing : Thing
    count : int
    place : str
        `left`, `right`, `back`, `front`, or `anywhere` for a group alone.
    colour : str or None
        As the picture shows it, where it is clear.
    variant : int
        Which of the thing's sprites is drawn.
    """

    thing: Thing
    count: int
    place: str
    colour: str | None = None
    variant: int = 0


@dataclass(frozen=True)
class Scene:
    """Groups on a ground, two to four things in all."""

    ground: str
    groups: tuple[Group, ...]


def spots(place: str, count: int, others: int) -> list[tuple[float, float]]:
    """Give the middle of each thing of a group in pixels, as (x, y).

    Parameters
    ----------
    others : int
        How many other groups the scene has.
    """
    if place == "anywhere":
        grid = [(17.0, 20.0), (47.0, 47.0), (47.0, 20.0), (17.0, 47.0)]
        row = {1: [(32.0, 36.0)], 2: [(17.0, 37.0), (47.0, 37.0)]}
        return row.get(count, [(32.0, 18.0), (16.0, 47.0), (48.0, 47.0)] if count == 3 else grid)
    if place in ("left", "right"):
        x = 16.0 if place == "left" else 48.0
        if others == 2:
            return [(x, 47.0)]
        return [(x, 37.0)] if count == 1 else [(x, 19.0), (x, 47.0)]
    y = 18.0 if place == "back" else 47.0
    return [(32.0, y)] if count == 1 else [(17.0, y), (47.0, y)]


class Composer:
    """Draws scenes from one style's sprites.

    Parameters
    ----------
    sprites : mapping of Thing to sequence of Sprite
        What may stand in a scene, in one drawing or in several.
    chance : mapping of Thing to float, optional
        How often each thing is drawn relative to others; 1 where it is not named.
    """

    def __init__(
        self,
        sprites: Mapping[Thing, Sequence[Sprite]],
        chance: Mapping[Thing, float] | None = None,
    ) -> None:
        self.sprites = dict(sprites)
        found: dict[str, list[Thing]] = defaultdict(list)
        for thing in self.sprites:
            for ground in thing.grounds:
                found[ground].append(thing)
        self.found = dict(sorted(found.items()))
        chance = chance or {}
        weights = {
            ground: np.asarray([chance.get(thing, 1.0) for thing in things])
            for ground, things in self.found.items()
        }
        size = np.asarray([weight.sum() for weight in weights.values()])
        self.grounds = tuple(self.found)
        self.ground_chance = size / size.sum()
        self.chance = {ground: weight / weight.sum() for ground, weight in weights.items()}
        self.drawn: dict[tuple[str, int], Image.Image] = {}

    def plan(self, rng: np.random.Generator) -> Scene:
        """Draw what a scene holds; the same thing never stands in two of its groups."""
        ground = self.grounds[int(rng.choice(len(self.grounds), p=self.ground_chance))]
        names = list(LAYOUTS)
        layout = names[int(rng.choice(len(names), p=[LAYOUTS[name][0] for name in names]))]
        places = LAYOUTS[layout][1]
        things = self.found[ground]
        places = places[: len(things)]
        chosen = rng.choice(len(things), len(places), replace=False, p=self.chance[ground])
        if layout == "alone":
            counts = [int(rng.integers(2, 5))]
        else:
            twice = rng.random(len(places)) < TWO_OF_A_KIND
            single = [layout == "three" and place != "back" for place in places]
            counts = [1 if s or not t else 2 for s, t in zip(single, twice, strict=True)]
        groups = tuple(
            Group(things[int(k)], count, place)
            for k, count, place in zip(chosen, counts, places, strict=True)
        )
        return self.cast(Scene(ground, groups), rng)

    def cast(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Choose a sprite for each group of a scene, and with it the colour that is told."""
        groups = []
        for group in scene.groups:
            sprites = self.sprites[group.thing]
            variant = int(rng.integers(len(sprites)))
            groups.append(replace(group, variant=variant, colour=sprites[variant].colour))
        return Scene(scene.ground, tuple(groups))

    def draw(self, scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a scene.

        Returns
        -------
        picture : ndarray of shape (64, 64, 3), uint8
        owners : ndarray of shape (64, 64), int8
            Which of the scene's groups each pixel shows; -1 for the ground.
        """
        variant = (scene.ground, int(rng.integers(VARIANTS)))
        if variant not in self.drawn:
            self.drawn[variant] = draw_ground(scene.ground, np.random.default_rng(variant[1]))
        canvas = self.drawn[variant].copy()
        owners = np.full((SIDE, SIDE), -1, np.int8)
        total = sum(group.count for group in scene.groups)
        side = {1: 34, 2: 31}.get(total, 27)
        placed = [
            (y, x, k)
            for k, group in enumerate(scene.groups)
            for x, y in spots(group.place, group.count, len(scene.groups) - 1)
        ]
        for y, x, k in sorted(placed):
            group = scene.groups[k]
            sprite = self.sprites[group.thing][group.variant].picture
            sprite = scaled(sprite, side + int(rng.integers(-2, 3)))
            if rng.random() < 0.5:
                sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            left = round(x + rng.integers(-JITTER, JITTER + 1) - sprite.width / 2)
            top = round(y + rng.integers(-JITTER, JITTER + 1) - sprite.height / 2)
            left = min(max(left, 0), SIDE - sprite.width)
            top = min(max(top, 0), SIDE - sprite.height)
            canvas.paste(sprite, (left, top), sprite)
            part = owners[top : top + sprite.height, left : left + sprite.width]
            part[np.asarray(sprite)[..., 3] > 128] = k
        return np.asarray(canvas), owners


def compose(
    composers: Sequence[Composer], count: int, rng: np.random.Generator
) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    """Plan and draw scenes, each by any of the composers.

    Returns
    -------
    scenes : list of Scene
    pictures : ndarray of shape (count, 64, 64, 3), uint8
    owners : ndarray of shape (count, 64, 64), int8
    """
    scenes, pictures, owners = [], [], []
    for _ in range(count):
        composer = composers[int(rng.integers(len(composers)))]
        scene = composer.plan(rng)
        picture, owner = composer.draw(scene, rng)
        scenes.append(scene)
        pictures.append(picture)
        owners.append(owner)
    return scenes, np.stack(pictures), np.stack(owners)
