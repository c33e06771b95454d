"""Pairs that knowledge bases are built of."""

from __future__ import annotations

import pytest

from kb.pairs import Pairs
from tests.kb.worlds import World, as_pairs, together


@pytest.fixture
def world() -> World:
    return World(0)


@pytest.fixture
def sides(world: World) -> tuple[Pairs, list[Pairs]]:
    internal = as_pairs(world.draw(300), "dataset", text="a cat")
    external = as_pairs(
        together(world.draw(200), world.draw_noise(100)), "web", licence="CC0", text="a dog"
    )
    return internal, [external, as_pairs(world.draw(50), "more")]
