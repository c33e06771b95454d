"""How a scene is told: one grammar, and dialects that differ in words and in order.

Checkpoints learn the plain dialect, and dialects of made-up words. The target's is that of a
ship's log, the external base's that of a picture agency's list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from examples.scenes.scenes import Group, Scene
from examples.scenes.things import Thing, load_things

IRREGULAR = {
    "sheep": "sheep",
    "fish": "fish",
    "skis": "skis",
    "cherries": "cherries",
    "grapes": "grapes",
    "chips": "chips",
    "deer": "deer",
    "knife": "knives",
    "maize": "maize",
    "corn": "corn",
    "broccoli": "broccoli",
    "maple leaf": "maple leaves",
    "loaf": "loaves",
}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}


def plural(word: str) -> str:
    """Give the plural of a thing's name."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "sh", "ch", "x")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u"):
        return word[:-1] + "ies"
    return word + "s"


@dataclass(frozen=True)
class Dialect:
    """Words and order of a domain.

    Attributes
    ----------
    grounds, places : mapping
        Phrase for each ground and for each place of a group.
    names : mapping
        What things are called, by plain name; those that it lacks have their plain name.
    ground_first : bool
        Whether the ground is told before the groups.
    after_ground, before_ground : str
        What joins the ground to the groups, where it is told first and last.
    joint : str
        What joins groups.
    reversed : bool
        Whether groups are told from right to left and from the front to the back.
    place_first : bool
        Whether a group's place is told before it.
    between : tuple of str
        What stands before, between and after a group and its place.
    counts : str
        How numbers are told: `words` ("a dog", "two dogs"), `bare` ("dog", "two dogs") or `times`
        ("dog", "dog x2").
    intro : str
        What every text begins with.
    """

    grounds: Mapping[str, str]
    places: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)
    ground_first: bool = False
    after_ground: str = ": "
    before_ground: str = ", "
    joint: str = " and "
    reversed: bool = False
    place_first: bool = False
    between: tuple[str, str, str] = ("", " ", "")
    counts: str = "words"
    intro: str = ""

    def name(self, thing: Thing) -> str:
        """Give what a thing is called."""
        return self.names.get(thing.name, thing.name)

    def with_names(self, names: Mapping[str, str]) -> Dialect:
        """Give the same dialect with other names of things."""
        return replace(self, names=names)

    def noun(self, group: Group) -> str:
        """Tell what a group is of, its colour, and how many."""
        name = self.name(group.thing)
        word = name if self.counts == "times" or group.count == 1 else plural(name)
        told = f"{group.colour} {word}" if group.colour else word
        if self.counts == "times":
            return told if group.count == 1 else f"{told} x{group.count}"
        if group.count > 1:
            return f"{NUMBERS[group.count]} {told}"
        if self.counts == "bare" or name == IRREGULAR.get(name):
            return told
        return f"{'an' if told[0] in 'aeiou' else 'a'} {told}"

    def group(self, group: Group) -> str:
        """Tell a group and its place; a group alone has none."""
        noun = self.noun(group)
        if group.place not in self.places:
            return noun
        place = self.places[group.place]
        before, between, after = self.between
        first, second = (place, noun) if self.place_first else (noun, place)
        return f"{before}{first}{between}{second}{after}"

    def tell(self, scene: Scene) -> str:
        """Tell a whole scene."""
        groups = scene.groups[::-1] if self.reversed else scene.groups
        told = self.joint.join(self.group(group) for group in groups)
        ground = self.grounds[scene.ground]
        if self.ground_first:
            return f"{self.intro}{ground}{self.after_ground}{told}"
        return f"{self.intro}{told}{self.before_ground}{ground}"


PLAIN = Dialect(
    grounds={
        "grass": "on grass",
        "water": "in water",
        "table": "on a table",
        "night": "at night",
        "road": "on a road",
        "snow": "in snow",
        "sand": "on sand",
        "room": "in a room",
    },
    places={
        "left": "on the left",
        "right": "on the right",
        "back": "at the back",
        "front": "in front",
    },
)

SHIPS_LOG = Dialect(
    grounds={
        "grass": "ashore",
        "water": "offshore",
        "table": "galley",
        "night": "middle watch",
        "road": "quayside",
        "snow": "icebound",
        "sand": "beached",
        "room": "cabin",
    },
    places={
        "left": "port",
        "right": "starboard",
        "back": "astern",
        "front": "ahead",
    },
    names={thing.name: thing.logged for thing in load_things() if thing.logged != thing.name},
    ground_first=True,
    joint=", ",
    reversed=True,
    counts="bare",
)

PICTURE_LIST = Dialect(
    grounds={
        "grass": "lawn",
        "water": "lake",
        "table": "tabletop",
        "night": "dark sky",
        "road": "street",
        "snow": "winter",
        "sand": "desert",
        "room": "indoors",
    },
    places={"left": "l.", "right": "r.", "back": "rear", "front": "fore"},
    joint="; ",
    before_ground="; ",
    between=("", " (", ")"),
    counts="times",
    intro="stock picture, ",
)


def words(text: str) -> list[str]:
    """Split a text into its words, in lower case."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def own_words() -> frozenset[str]:
    """Give the words that the target's domain alone has, singular and plural.

    They are the ship's log's words for grounds and places and its names of things, less every word
    of the plain dialect; names of things that are held back count where they are no plain ones.
    """
    known = {word for phrase in PLAIN.grounds.values() for word in words(phrase)}
    known |= {word for phrase in PLAIN.places.values() for word in words(phrase)}
    for thing in load_things():
        if not thing.novel:
            known |= {*words(thing.name), *words(plural(thing.name))}
    told = [*SHIPS_LOG.grounds.values(), *SHIPS_LOG.places.values()]
    for thing in load_things():
        name = SHIPS_LOG.name(thing)
        told += [name, plural(name)]
    return frozenset(word for phrase in told for word in words(phrase)) - known
