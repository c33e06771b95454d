"""The checkpoints' vocabulary, and dialects of made-up words, which teach to take a word as told.

The vocabulary is learned from the names and keywords of all drawings: English beyond the few words
of the plain dialect, as a large model's vocabulary is. No text of the target's domain is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.scenes.grammar import PICTURE_LIST, PLAIN, SHIPS_LOG, Dialect, own_words, words
from examples.scenes.names import load_concepts
from examples.scenes.scenes import Scene
from examples.scenes.sources import WORK
from examples.scenes.things import COLOURS, load_things

if TYPE_CHECKING:
    from tokenizers import Regex
    from transformers import CLIPTokenizer

VOCABULARY = 3000
CONTEXT = 48
# Orders and marks that a made-up dialect may have; the log's and the list's are not among them.
JOINTS = (" and ", ", ", "; ", " with ", " / ", " + ")
GROUND_MARKS = (": ", ", ", " - ", "; ", " / ")
BETWEEN = (("", " ", ""), ("", " (", ")"), ("", ": ", ""), ("[", " ", "]"))
INTROS = ("", "", "", "a picture of ", "here: ", "see ", "view, ", "no. 7: ")


def corpus(work: Path = WORK) -> Iterator[str]:
    """Give the texts that the vocabulary is learned from."""
    names, keywords = [], []
    for concept in load_concepts(work):
        names += [concept.name] * 3 + [concept.title]
        keywords.append(" ".join(concept.keywords))
    plain = [*PLAIN.grounds.values(), *PLAIN.places.values(), *COLOURS, "grey", "and a", "an"]
    plain += [thing.name for thing in load_things() if not thing.novel]
    plain += ["two three four x2 x3 x4 ( ) ; : , / + - [ ]"]
    yield from names + keywords + plain * 20


@lru_cache(maxsize=2)
def foreign_words(work: Path = WORK) -> tuple[str, ...]:
    """Give English words that made-up dialects borrow: none of the plain or the target's dialect."""
    taken = set(own_words()) | set(COLOURS)
    for dialect in (PLAIN, SHIPS_LOG, PICTURE_LIST):
        for phrase in (
            *dialect.grounds.values(),
            *dialect.places.values(),
            *dialect.names.values(),
        ):
            taken |= set(words(phrase))
    for thing in load_things():
        taken |= set(words(thing.name)) | set(words(thing.logged))
    found = {
        word
        for concept in load_concepts(work)
        for text in (concept.name, *concept.keywords)
        for word in words(text)
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 11
    }
    return tuple(sorted(found - taken))


def made_up_word(rng: np.random.Generator, foreign: Sequence[str]) -> str:
    """Make a word up: a borrowed one, or the beginning of one with the end of another."""
    first = foreign[int(rng.integers(len(foreign)))]
    if rng.random() < 0.45:
        return first
    last = foreign[int(rng.integers(len(foreign)))]
    return first[: int(rng.integers(2, 5))] + last[-int(rng.integers(2, 5)) :]


def made_up_dialect(
    rng: np.random.Generator, names: Sequence[str], foreign: Sequence[str], share: float
) -> Dialect:
    """Draw a dialect.

    Parameters
    ----------
    names : sequence of str
        Plain names of the things that may need a word.
    share : float
        How many of the names, and of the phrases for grounds and places, are made up.
    """

    def word() -> str:
        return made_up_word(rng, foreign)

    def phrase() -> str:
        return word() if rng.random() < 0.75 else f"{word()} {word()}"

    other = {name: word() for name in names if rng.random() < share}
    strange_ground, strange_place = rng.random(2) < 0.25 + 0.75 * share
    grounds = {key: phrase() if strange_ground else told for key, told in PLAIN.grounds.items()}
    places = {key: phrase() if strange_place else told for key, told in PLAIN.places.items()}
    return Dialect(
        grounds=grounds,
        places=places,
        names=other,
        ground_first=bool(rng.random() < 0.5),
        after_ground=str(rng.choice(GROUND_MARKS)),
        before_ground=str(rng.choice(GROUND_MARKS)),
        joint=str(rng.choice(JOINTS)),
        reversed=bool(rng.random() < 0.4),
        place_first=bool(rng.random() < 0.3),
        between=BETWEEN[int(rng.integers(len(BETWEEN)))],
        counts=str(rng.choice(["words", "bare", "times"])),
        intro=str(rng.choice(INTROS)),
    )


def as_shown(dialect: Dialect, scenes: Sequence[Scene]) -> Dialect:
    """Keep of a dialect what telling some scenes shows; the rest becomes plain.

    It is what can be learned of a domain from examples alone: words for grounds, places and things
    that are told, and how groups are joined where there are several.
    """
    grounds = {scene.ground for scene in scenes}
    groups = [group for scene in scenes for group in scene.groups]
    names = {group.thing.name for group in groups}
    places = {group.place for group in groups}
    shown = replace(
        dialect,
        grounds={k: v if k in grounds else PLAIN.grounds[k] for k, v in dialect.grounds.items()},
        places={k: v if k in places else PLAIN.places[k] for k, v in dialect.places.items()},
        names={k: v for k, v in dialect.names.items() if k in names},
    )
    if all(group.count == 1 for group in groups) and dialect.counts == "times":
        shown = replace(shown, counts="bare")
    if all(len(scene.groups) == 1 for scene in scenes):
        order = {"reversed": PLAIN.reversed, "place_first": PLAIN.place_first}
        shown = replace(shown, joint=PLAIN.joint, between=PLAIN.between, **order)
    return shown


def learn_tokenizer(folder: Path, work: Path = WORK) -> CLIPTokenizer:
    """Learn the scenes' vocabulary in CLIP's tokenizer format, or read what lies in the folder."""
    return learn_clip_tokenizer(corpus(work), folder, VOCABULARY, CONTEXT)


def learn_clip_tokenizer(
    texts: Iterable[str], folder: Path, vocabulary_size: int, context: int
) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in CLIP's tokenizer format, or read what lies in the folder.

    Returns
    -------
    CLIPTokenizer
        Also saved to `folder`; the two special tokens have the highest ids.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").is_file():
        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(_clip_pattern(), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size - 2,
            end_of_word_suffix="</w>",
            show_progress=False,
            initial_alphabet=[],
            min_frequency=2,
        )
        learner.train_from_iterator(texts, trainer)
        learned = json.loads(learner.to_str())["model"]
        vocabulary = dict(learned["vocab"])
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        for letter in letters:
            for piece in (letter, letter + "</w>"):
                vocabulary.setdefault(piece, len(vocabulary))
        for special in ("<|startoftext|>", "<|endoftext|>"):
            vocabulary[special] = len(vocabulary)
        tokenizer = CLIPTokenizer(
            vocab=vocabulary,
            merges=[tuple(pair) for pair in learned["merges"]],
            model_max_length=context,
        )
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _clip_pattern() -> Regex:
    from tokenizers import Regex

    return Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
