"""The captioner's prompts, processor and untrained model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.scenes.grounds import SIDE
from examples.scenes.sources import WORK
from examples.scenes.training.texts import VOCABULARY, corpus
from examples.scenes.training.towers import MEAN, STD

if TYPE_CHECKING:
    from torch import nn

QUERIES = 8
WIDTH = 96
HEADS, HEAD_WIDTH = 4, 32
POSITIONS = 240
PROMPT = "Please write a caption of the image. Caption:"
NUMBERS = {1: "two", 2: "three", 3: "four"}


def prompt_with(examples: list[str]) -> str:
    """Give the pipeline's prompt for some examples."""
    if not examples:
        return PROMPT
    shown = " ".join(f"Caption {i}: {text}" for i, text in enumerate(examples, 1))
    count = NUMBERS[len(examples)]
    return f"Please write {count} captions of the image. {shown} Caption {len(examples) + 1}:"


def learn_processor(folder: Path, work: Path = WORK) -> Any:
    """Learn a byte-level vocabulary and save the whole `Blip2Processor`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, Blip2Processor, BlipImageProcessor
    from transformers import PreTrainedTokenizerFast as Fast

    if not (folder / "tokenizer.json").is_file():
        from tokenizers import decoders, processors

        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            show_progress=False,
            min_frequency=2,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<image>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        prompts = [prompt_with(["a"] * (i % 4)) for i in range(40)]
        lines = [f" {text}" for text in corpus(work)]
        learner.train_from_iterator(prompts + lines, trainer)
        learner.post_processor = processors.TemplateProcessing(
            single="</s> $A", special_tokens=[("</s>", 2)]
        )
        fast = Fast(
            tokenizer_object=learner,
            bos_token="</s>",
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            padding_side="left",
            model_max_length=POSITIONS,
            extra_special_tokens=["<image>"],
            model_input_names=["input_ids", "attention_mask"],
        )
        side = {"height": SIDE, "width": SIDE}
        images = BlipImageProcessor(size=side, image_mean=list(MEAN), image_std=list(STD))
        folder.mkdir(parents=True, exist_ok=True)
        Blip2Processor(images, fast, num_query_tokens=QUERIES).save_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
    return Blip2Processor.from_pretrained(folder)


def new_captioner(processor: Any) -> nn.Module:
    """Make the untrained model."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    tokenizer = processor.tokenizer
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = Blip2Config(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": SIDE,
            "patch_size": 8,
        },
        qformer_config={
            "vocab_size": 4,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": WIDTH,
            "max_position_embeddings": 4,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": HEADS * HEAD_WIDTH,
            "word_embed_proj_dim": HEADS * HEAD_WIDTH,
            "ffn_dim": 4 * HEADS * HEAD_WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "dropout": 0.0,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=QUERIES,
        image_token_index=image_token,
        image_token_id=image_token,
    )
    model: nn.Module = Blip2ForConditionalGeneration(config)
    wire_to_repeat(model)
    return model


def wire_to_repeat(captioner: Any) -> None:
    """Begin with what language models of a full size have learned: to go on as before.

    A head of OPT's first layer looks at the token before and hands it on, one of the second looks for
    where the present token was handed on so, and foretells what stands there: an induction head (Olsson
    et al., *In-context Learning and Induction Heads*, 2022). Without them half an hour's training brought
    this model none of the skill (README.md). Both are learned on with all the rest.
    """
    import torch

    decoder = captioner.language_model.model.decoder
    first, second = (layer.self_attn for layer in decoder.layers[:2])
    own = slice(0, HEAD_WIDTH)
    words = slice(0, (HEADS - 1) * HEAD_WIDTH)
    places = slice(words.stop, words.stop + HEAD_WIDTH)
    cosines, sines = (slice(start, start + HEAD_WIDTH // 2) for start in (0, HEAD_WIDTH // 2))
    # Multiples of the golden ratio, so that the angles come together at no distance but none.
    golden = (math.sqrt(5) - 1) / 2
    frequencies = math.pi * ((torch.arange(HEAD_WIDTH // 2) + 1) * golden % 1)
    table = decoder.embed_positions.weight
    angles = torch.arange(len(table))[:, None] * frequencies
    turn = torch.zeros(HEAD_WIDTH, HEAD_WIDTH)
    turn[cosines, cosines] = turn[sines, sines] = frequencies.cos().diag()
    turn[cosines, sines] = frequencies.sin().diag()
    turn[sines, cosines] = -frequencies.sin().diag()
    basis = torch.linalg.qr(torch.randn(words.stop, words.stop)).Q
    read, handed = basis[:HEAD_WIDTH], basis[HEAD_WIDTH : 2 * HEAD_WIDTH]
    with torch.no_grad():
        table.zero_()
        table[:, places] = (
            3 * decoder.embed_tokens.weight.std() * torch.cat([angles.cos(), angles.sin()], 1)
        )
        # What the first layer adds besides shall not drown it at the start.
        decoder.layers[0].fc2.weight *= 0.1
        first.out_proj.weight *= 0.1
        for attention in (first, second):
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                part.weight[own] = 0
            attention.v_proj.weight[own, words] = read
            attention.out_proj.weight[:, own] = 0
        first.q_proj.weight[own, places] = turn
        first.k_proj.weight[own, places] = torch.eye(HEAD_WIDTH)
        first.out_proj.weight[words, own] = 0.1 * handed.T
        second.q_proj.weight[own, words] = 1.5 * read
        second.k_proj.weight[own, words] = 1.5 * handed
        second.out_proj.weight[words, own] = 0.3 * read.T
