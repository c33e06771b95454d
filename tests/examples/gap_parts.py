"""Small parts for tests of the recipe: one seeded convolution as eyes, and a language model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

SIDE, POSITIONS = 32, 224


def small_eyes() -> tuple[nn.Module, int]:
    """A network that gives a map of 4 by 4 places, and the side of its pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 12, 8, stride=8), nn.ReLU()), SIDE


def small_language_model(folder: Path) -> Path:
    """An untrained OPT of bytes, in transformers' layout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    speller = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    speller.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    speller.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=speller, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    config = OPTConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        OPTForCausalLM(config).save_pretrained(folder)
    return folder
