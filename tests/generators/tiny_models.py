"""Tiny checkpoints of random weights, in the formats of the full-size ones, made in seconds."""

from __future__ import annotations

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


def byte_tokenizer(kind: str, vocabulary: int = 400):
    """A byte-level BPE tokenizer with the special tokens of a model family."""
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


def blip2(folder: Path, text: str, half: bool = False) -> Path:
    """A BLIP-2 with an OPT (``text="opt"``) or a T5 (``"t5"``) inside."""
    import torch
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
        T5Config,
    )

    tokenizer = byte_tokenizer(text)
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer, num_query_tokens=4
    )
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if text == "opt":
        text_config = OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            bos_token_id=tokenizer.bos_token_id,
            **ends,
        )
    else:
        text_config = T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=tokenizer.pad_token_id,
            **ends,
        )
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        qformer_config=Blip2QFormerConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            encoder_hidden_size=32,
        ),
        text_config=text_config,
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Blip2ForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Wide enough that images and prompts really change the answer.
                torch.nn.init.normal_(parameter, std=0.2)
        torch.nn.init.normal_(model.query_tokens, std=1.0)
    if half:
        model = model.half()
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    return folder
