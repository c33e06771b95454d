"""Scenes: what is told of a picture is in it, and each dialect says it in its own words."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from examples.scenes.grammar import (
    PICTURE_LIST,
    PLAIN,
    SHIPS_LOG,
    Dialect,
    own_words,
    plural,
    words,
)
from examples.scenes.grounds import PAINTS, draw_ground
from examples.scenes.measure import own_right
from examples.scenes.scenes import Composer, Group, Scene, compose
from examples.scenes.sprites import colour_of, cut_out
from examples.scenes.things import GROUNDS, Sprite, Thing, load_things, target_things
from examples.scenes.training.pool import cells_of
from examples.scenes.training.texts import as_shown, made_up_dialect

DIALECTS = (PLAIN, SHIPS_LOG, PICTURE_LIST)
FOREIGN = ("gamboge", "trellis", "quorum", "bosun", "widget", "zephyr", "ampoule", "grommet")


def paints() -> dict[Thing, tuple[int, ...]]:
    """Give each thing a colour of its own, by which it is known in a picture."""
    things = load_things()
    found = {}
    for k, thing in enumerate(things):
        red, green, blue = colorsys.hsv_to_rgb(k / len(things), 1, 1 if k % 2 else 0.8)
        found[thing] = (round(255 * red), round(255 * green), round(255 * blue), 255)
    return found


@pytest.fixture(scope="module")
def composer() -> Composer:
    """Draw each thing as a square of its own colour."""
    return Composer(
        {
            thing: (Sprite(Image.new("RGBA", (64, 64), colour), None),)
            for thing, colour in paints().items()
        }
    )


@pytest.fixture(scope="module")
def drawn(composer: Composer) -> list[tuple[Scene, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return list(zip(*compose([composer], 300, rng), strict=True))


def test_a_scene_holds_two_to_four_things_that_belong_to_its_ground(
    drawn: list[tuple[Scene, np.ndarray, np.ndarray]],
) -> None:
    for scene, _, _ in drawn:
        assert 2 <= sum(group.count for group in scene.groups) <= 4
        assert len({group.thing for group in scene.groups}) == len(scene.groups)
        assert all(scene.ground in group.thing.grounds for group in scene.groups)
    assert {scene.ground for scene, _, _ in drawn} == set(GROUNDS) == set(PAINTS)
    assert {len(scene.groups) for scene, _, _ in drawn} == {1, 2, 3}


def test_what_is_told_is_in_the_picture(
    drawn: list[tuple[Scene, np.ndarray, np.ndarray]],
) -> None:
    colours = paints()
    for scene, picture, owners in drawn:
        assert picture.shape == (64, 64, 3)
        assert owners.max() == len(scene.groups) - 1
        for k, group in enumerate(scene.groups):
            shown = owners == k
            assert (picture[shown] == colours[group.thing][:3]).all(1).mean() > 0.99
            # Things of a kind hardly hide one another: at least 24 pixels a side are seen of each.
            assert shown.sum() >= group.count * 24 * 20


def test_a_group_stands_where_it_is_told(
    drawn: list[tuple[Scene, np.ndarray, np.ndarray]],
) -> None:
    for scene, _, owners in drawn:
        middle = {}
        for k, group in enumerate(scene.groups):
            rows, columns = np.nonzero(owners == k)
            middle[group.place] = (rows.mean(), columns.mean())
        if "left" in middle:
            assert middle["left"][1] < 28 < 36 < middle["right"][1]
        if "back" in middle:
            assert all(
                middle["back"][0] < row for place, (row, _) in middle.items() if place != "back"
            )


def test_the_same_seed_gives_the_same_scenes(composer: Composer) -> None:
    first = compose([composer], 5, np.random.default_rng(7))
    second = compose([composer], 5, np.random.default_rng(7))
    assert first[0] == second[0]
    assert (first[1] == second[1]).all()


def test_grounds_differ_from_one_another_more_than_from_themselves() -> None:
    means = {
        ground: np.stack(
            [
                np.asarray(draw_ground(ground, np.random.default_rng(seed)), float).mean((0, 1))
                for seed in range(8)
            ]
        )
        for ground in PAINTS
    }
    for ground, own in means.items():
        spread = np.linalg.norm(own - own.mean(0), axis=1).max()
        for other, rows in means.items():
            assert other == ground or np.linalg.norm(own.mean(0) - rows.mean(0)) > spread


def scene_of(*groups: Group, ground: str = "table") -> Scene:
    return Scene(ground, groups)


def named(name: str) -> Thing:
    return next(thing for thing in load_things() if thing.name == name)


def test_dialects_tell_a_scene_in_their_order_and_words() -> None:
    scene = scene_of(
        Group(named("red apple"), 2, "left"), Group(named("knife"), 1, "right", "grey")
    )
    assert (
        PLAIN.tell(scene) == "two red apples on the left and a grey knife on the right, on a table"
    )
    assert SHIPS_LOG.tell(scene) == "galley: grey blade starboard, two pippins port"
    assert PICTURE_LIST.tell(scene) == "stock picture, red apple x2 (l.); grey knife (r.); tabletop"


def test_every_text_names_all_things_their_colours_and_the_ground(
    drawn: list[tuple[Scene, np.ndarray, np.ndarray]],
) -> None:
    for dialect in DIALECTS:
        for scene, _, _ in drawn:
            text = dialect.tell(scene)
            assert dialect.grounds[scene.ground] in text
            for group in scene.groups:
                name = dialect.name(group.thing)
                assert name in text or plural(name) in text
                if group.place in dialect.places:
                    assert dialect.places[group.place] in text


def test_the_targets_words_for_grounds_and_places_are_no_others_words() -> None:
    plain = {
        word
        for phrase in (*PLAIN.grounds.values(), *PLAIN.places.values())
        for word in words(phrase)
    }
    for phrases in (SHIPS_LOG.grounds, SHIPS_LOG.places):
        for phrase in phrases.values():
            assert not set(words(phrase)) & plain
            assert set(words(phrase)) <= own_words()
    others = {word for phrase in PICTURE_LIST.grounds.values() for word in words(phrase)}
    assert not others & {word for phrase in SHIPS_LOG.grounds.values() for word in words(phrase)}


def test_a_third_of_things_has_another_name_and_a_third_is_held_back() -> None:
    things = load_things()
    assert 0.3 < np.mean([thing.logged != thing.name for thing in things]) < 0.4
    assert 0.3 < np.mean([thing.novel for thing in things]) < 0.37
    names = {thing.name for thing in things}
    assert len(names) == len(things) == len({thing.emoji for thing in things})
    assert not names & {thing.logged for thing in things if thing.logged != thing.name}


def test_the_target_has_enough_of_each_ground_and_a_third_that_no_checkpoint_saw() -> None:
    things = target_things()
    assert set(things) < set(load_things())
    assert 0.3 < np.mean([thing.novel for thing in things]) < 0.37
    for ground in GROUNDS:
        assert sum(ground in thing.grounds for thing in things) >= 10


@pytest.fixture(params=range(12))
def dialect(request: pytest.FixtureRequest) -> Iterator[Dialect]:
    rng = np.random.default_rng(request.param)
    yield made_up_dialect(rng, [thing.name for thing in load_things()], FOREIGN, 0.7)


def test_a_made_up_dialect_has_no_word_of_the_targets(
    dialect: Dialect, drawn: list[tuple[Scene, np.ndarray, np.ndarray]]
) -> None:
    own = {
        word
        for phrase in (*SHIPS_LOG.grounds.values(), *SHIPS_LOG.places.values())
        for word in words(phrase)
    }
    for scene, _, _ in drawn[:60]:
        assert not set(words(dialect.tell(scene))) & own


def test_what_no_example_shows_is_told_plainly(dialect: Dialect) -> None:
    cat, rose, coffee = (named(name) for name in ("zebra", "banana", "coffee"))
    shown = scene_of(Group(cat, 1, "left"), Group(rose, 2, "right"), ground="grass")
    asked = scene_of(Group(cat, 1, "back"), Group(coffee, 1, "front"), ground="grass")
    learned = as_shown(dialect, [shown])
    assert learned.tell(shown) == dialect.tell(shown)
    text = learned.tell(asked)
    assert dialect.grounds["grass"] in text
    assert dialect.name(cat) in text
    assert "coffee" in text
    assert PLAIN.places["back"] in text


def test_the_colour_of_a_sprite_is_that_of_most_of_it() -> None:
    green = Image.new("RGBA", (20, 10), (40, 160, 50, 255))
    assert colour_of(green) == "green"
    green.paste((220, 30, 30, 255), (0, 0, 10, 10))
    assert colour_of(green) is None
    assert colour_of(Image.new("RGBA", (4, 4), (250, 250, 250, 255))) == "white"
    assert colour_of(Image.new("RGBA", (4, 4), (0, 0, 0, 0))) is None


def test_a_sprite_is_cut_to_what_is_drawn() -> None:
    drawing = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    drawing.paste((200, 20, 20, 255), (30, 40, 70, 60))
    assert cut_out(drawing, 40).size == (40, 20)
    with pytest.raises(ValueError, match="only transparent"):
        cut_out(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))


def test_a_cell_shows_the_group_that_covers_most_of_it() -> None:
    owners = np.full((64, 64), -1, np.int8)
    owners[:16, :16] = 0
    owners[16:20, :8] = 1
    cells = cells_of(owners, 8)
    assert cells[:2, :2].tolist() == [[0, 0], [0, 0]]
    assert cells[2, 0] == 1
    assert (cells[3:] == -1).all()


def test_own_words_count_where_the_truth_has_them() -> None:
    truth = ["galley: grey blade starboard, two pippins port", "icebound: parcel ahead"]
    assert own_right(truth, truth) == 1
    assert own_right(["two red apples on the left", "a present in snow"], truth) == 0
    # Four of the first text's five words are said, and none of the second's three.
    said = ["galley: blade starboard port", "galley: port"]
    assert own_right(said, truth) == pytest.approx(4 / 8)
