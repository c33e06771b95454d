"""A tokenizer of eleven words."""

from __future__ import annotations

from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "red", "house", "on", "the"]


def save_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizerFast

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    BertTokenizerFast(vocab=vocabulary, model_max_length=16).save_pretrained(folder)
