"""What the captioner is asked and is to answer: scenes, examples beside them, and dialects."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from examples.scenes.grammar import PLAIN
from examples.scenes.scenes import Scene
from examples.scenes.things import Thing, load_things
from examples.scenes.training.pool import Pool
from examples.scenes.training.texts import as_shown, made_up_dialect, made_up_word

# How an example is found: by a thing of the scene on the same ground, by a thing, by the ground;
# in the rest of the draws it has nothing to do with the scene.
SHARES_BOTH, SHARES_THING, SHARES_GROUND = 0.55, 0.2, 0.12
TRIES = 6
# Lessons in which an example tells the very scene: where the picture fits, all of it may be taken up.
SAME = 0.1
# Scenes of the target's things alone; the others hold a thing whose word must come of an example.
FAMILIAR = 0.6


class School:
    """Draws lessons from a pool of scenes.

    Parameters
    ----------
    pool : Pool
    foreign : tuple of str
        Words that made-up dialects borrow.
    """

    def __init__(self, pool: Pool, foreign: tuple[str, ...]) -> None:
        self.scenes = pool.scenes
        self.foreign = foreign
        self.known = set(load_things())
        self.by_thing: dict[Thing, list[int]] = defaultdict(list)
        self.by_ground: dict[str, list[int]] = defaultdict(list)
        familiar, other = [], []
        for row, scene in enumerate(self.scenes):
            self.by_ground[scene.ground].append(row)
            for group in scene.groups:
                self.by_thing[group.thing].append(row)
            all_known = all(group.thing in self.known for group in scene.groups)
            (familiar if all_known else other).append(row)
        self.familiar, self.other = np.asarray(familiar), np.asarray(other)

    def draw_rows(self, count: int, examples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw scenes to be told; without examples only such as are told in known names."""
        share = FAMILIAR if examples else 1.0
        wanted = rng.random(count) < share
        if not len(self.familiar) or not len(self.other):
            return rng.integers(0, len(self.scenes), count)
        return np.where(wanted, rng.choice(self.familiar, count), rng.choice(self.other, count))

    def find_example(self, row: int, rng: np.random.Generator) -> Scene:
        """Find an example as a retrieval would: sharing a thing, or the ground, mostly both."""
        scene = self.scenes[row]
        draw = rng.random()
        if draw < SHARES_BOTH + SHARES_THING:
            strange = [group.thing for group in scene.groups if group.thing not in self.known]
            things = strange or [group.thing for group in scene.groups]
            rows = self.by_thing[things[int(rng.integers(len(things)))]]
            found = row
            for _ in range(TRIES):
                found = rows[int(rng.integers(len(rows)))]
                both = self.scenes[found].ground == scene.ground
                if found != row and (both or draw >= SHARES_BOTH):
                    break
            return self.scenes[found]
        if draw < SHARES_BOTH + SHARES_THING + SHARES_GROUND:
            rows = self.by_ground[scene.ground]
            return self.scenes[rows[int(rng.integers(len(rows)))]]
        return self.scenes[int(rng.integers(len(self.scenes)))]

    def lesson(self, row: int, examples: int, rng: np.random.Generator) -> tuple[list[str], str]:
        """Give the texts of some examples, and what is to be said of the scene after them.

        All are in one made-up dialect; words of it that no example shows are answered plainly.
        Without an example the answer is plain altogether.
        """
        scene = self.scenes[row]
        if not examples:
            return [], PLAIN.tell(scene)
        shown = [self.find_example(row, rng) for _ in range(examples)]
        if rng.random() < SAME:
            shown[int(rng.integers(examples))] = scene
        names = {group.thing.name: group.thing for one in (*shown, scene) for group in one.groups}
        share = float(rng.choice([0.0, 0.35, 0.7, 0.7, 1.0]))
        dialect = made_up_dialect(rng, sorted(names), self.foreign, share)
        # Things beyond the target's have no name of their own: their word is always the example's.
        other = [name for name, thing in sorted(names.items()) if thing not in self.known]
        words = {name: made_up_word(rng, self.foreign) for name in other}
        dialect = as_shown(dialect, shown).with_names({**dialect.names, **words})
        return [dialect.tell(one) for one in shown], as_shown(dialect, shown).tell(scene)
