"""The checkpoints' vocabulary, and captions of a concept in varied wording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.emoji.captions import Concept, load_concepts

if TYPE_CHECKING:
    from tokenizers import Regex
    from transformers import CLIPTokenizer

VOCABULARY = 2600
CONTEXT = 32


def keywords_only(concept: Concept, rng: np.random.Generator, most: int = 4) -> str:
    """Join a few keywords in random order; the name where there are none."""
    if not concept.keywords:
        return concept.name
    count = int(rng.integers(1, most + 1))
    return ", ".join(rng.permutation(list(concept.keywords))[:count].tolist())


def wording(concept: Concept, rng: np.random.Generator, plain_share: float = 0.5) -> str:
    """Word a concept at random: by name, by its other title, with keywords, by keywords alone."""
    draw = rng.random()
    if draw < plain_share:
        return concept.name
    draw = (draw - plain_share) / (1 - plain_share)
    if draw < 0.2:
        return concept.title
    if draw < 0.6:
        return f"{concept.name}, {keywords_only(concept, rng, 3)}"
    return keywords_only(concept, rng)


def corpus(concepts: Sequence[Concept]) -> list[str]:
    """Give the texts that the vocabulary is learned from; names weigh more than keywords."""
    names = [concept.name for concept in concepts for _ in range(3)]
    titles = [concept.title for concept in concepts]
    return names + titles + [" ".join(concept.keywords) for concept in concepts]


def learn_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary from names and keywords, in CLIP's tokenizer format.

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
            vocab_size=VOCABULARY - 2,
            end_of_word_suffix="</w>",
            show_progress=False,
            initial_alphabet=[],
            min_frequency=2,
        )
        learner.train_from_iterator(corpus(load_concepts()), trainer)
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
            model_max_length=CONTEXT,
        )
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def _clip_pattern() -> Regex:
    from tokenizers import Regex

    return Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
