"""Tiny tokenizers of the families that the full-size models have, trained in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

WORDS = (
    "a an the of on in with and red green blue yellow hat cat dog fish bird tree house boat face "
    "smiling sleeping running small large old new please write one two three four caption captions "
    "image similar to please describe user assistant picture sun moon star apple pear grape"
)


def corpus() -> Iterable[str]:
    """Texts that a tiny tokenizer is trained on."""
    words = WORDS.split()
    for number in range(400):
        yield " ".join(words[(number * step) % len(words)] for step in (1, 3, 7, 11, 13, 17))
    yield "Please write two captions of the image. Caption 1: a red hat Caption 2:"


def byte_tokenizer(kind: str, vocabulary: int = 400, words: int = 0):
    """A byte-level BPE tokenizer with the special tokens of a model family.

    Made-up words that no text has fill it up to so many `words`, for a model of that vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {
        "opt": ["<pad>", "</s>", "<unk>"],
        "t5": ["<pad>", "</s>", "<unk>"],
        "llama": ["<pad>", "<s>", "</s>", "<unk>", "<image>"],
    }[kind]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if words:
        learned = json.loads(tokenizer.to_str())
        known = learned["model"]["vocab"]
        known |= {f"Ġw{number}": number for number in range(len(known), words)}
        tokenizer = Tokenizer.from_str(json.dumps(learned))
    template = {"opt": "</s> $A", "t5": "$A </s>", "llama": "$A"}[kind]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in special],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if kind == "llama" else "</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=256,
    )


def clip_tokenizer(folder: Path):
    """A CLIP tokenizer (lower-cased byte-level BPE, 77 tokens) over a small vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = Tokenizer(
        models.BPE(unk_token=ends[1], end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=ends,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(folder))
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=77,
    )
