"""Stage `captioner`: a `Blip2ForConditionalGeneration` on an OPT decoder, trained end to end.

It learns the prompts that the pipeline uses, with none, one and two examples. Examples are other
wordings of the concept, or neighbours of it, or unrelated, so that it learns to look first. Two
more losses teach the queries to see, as BLIP-2's first training stage does: their mean is drawn to
the concept's text embedding by the stage `encoder` among those of all concepts, and to that
encoder's embedding of the same augmented picture.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.emoji.captions import Concept, in_target, load_concepts
from examples.emoji.pictures import TRAINING_STYLES, load_pictures
from examples.emoji.training import augment
from examples.emoji.training.encoder import MEAN, STD, normalise
from examples.emoji.training.loop import Schedule, train
from examples.emoji.training.texts import corpus, keywords_only, learn_tokenizer, wording

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 48
QUERIES = 8
PROMPT = "Please write a caption of the image. Caption:"
NUMBERS = {1: "two", 2: "three", 3: "four"}


def prompt_with(examples: list[str]) -> str:
    """Give the pipeline's prompt for some examples."""
    if not examples:
        return PROMPT
    shown = " ".join(f"Caption {i}: {text}" for i, text in enumerate(examples, 1))
    count = NUMBERS[len(examples)]
    return f"Please write {count} captions of the image. {shown} Caption {len(examples) + 1}:"


def learn_processor(folder: Path) -> Any:
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
            vocab_size=2600,
            show_progress=False,
            min_frequency=2,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<image>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        prompts = [prompt_with(["a"] * (i % 4)) for i in range(40)]
        lines = [f" {text}" for text in corpus(load_concepts())]
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
            model_max_length=160,
            extra_special_tokens=["<image>"],
            model_input_names=["input_ids", "attention_mask"],
        )
        side = {"height": 64, "width": 64}
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
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 8,
        },
        qformer_config={
            "vocab_size": 4,
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": 96,
            "max_position_embeddings": 4,
            "hidden_dropout_prob": 0.05,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": 96,
            "word_embed_proj_dim": 96,
            "ffn_dim": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "max_position_embeddings": 192,
            "dropout": 0.05,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=QUERIES,
        image_token_index=image_token,
        image_token_id=image_token,
    )
    model: nn.Module = Blip2ForConditionalGeneration(config)
    return model


def draw_examples(
    i: int, concepts: tuple[Concept, ...], near: dict[str, list[int]], rng: np.random.Generator
) -> list[str]:
    """Draw none, one or two example captions: of the concept, of a neighbour, or of anything."""
    examples = []
    for _ in range(int(rng.choice(3, p=[0.45, 0.45, 0.1]))):
        draw = rng.random()
        if draw < 0.45:
            source = concepts[i]
        elif draw < 0.75:
            source = concepts[int(rng.choice(near[concepts[i].subcategory]))]
        else:
            source = concepts[int(rng.integers(len(concepts)))]
        said = keywords_only(source, rng) if rng.random() < 0.5 else wording(source, rng)
        examples.append(said)
    return examples


def train_captioner(work: Path, folder: Path, seed: int, steps: int, minutes: float) -> None:
    """Train the captioner and write it, with its processor, to `folder`."""
    import open_clip
    import torch
    from torch.nn import functional

    processor = learn_processor(work / "processor")
    tokenizer = processor.tokenizer
    concepts = load_concepts()
    near: dict[str, list[int]] = defaultdict(list)
    for i, concept in enumerate(concepts):
        near[concept.subcategory].append(i)
    rows, parts = [], []
    for style in TRAINING_STYLES:
        held, pictures = load_pictures(style)
        keep = np.asarray([in_target(concepts[i]) for i in held])
        rows.append(held[keep])
        parts.append(augment.to_tensor(pictures[keep]))
    row, x = np.concatenate(rows), torch.cat(parts)
    encoder = folder.with_name("encoder")
    tower, _, _ = open_clip.create_model_and_transforms(f"local-dir:{encoder}")
    words = learn_tokenizer(work / "tokenizer")
    with torch.no_grad():
        tokens = words(
            [concept.name for concept in concepts],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        names = functional.normalize(tower.eval().float().encode_text(tokens), dim=-1)
    shown = np.unique(row)
    known = names[shown]
    place = torch.zeros(len(concepts), dtype=torch.long)
    place[shown] = torch.arange(len(shown))
    image_tokens = [tokenizer.convert_tokens_to_ids("<image>")] * QUERIES
    answers = [
        tokenizer(f" {c.name}", add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        for c in concepts
    ]

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        captioner = model["captioner"]
        chosen = rng.integers(0, len(row), BATCH)
        batch = augment.move(x[chosen], rng, 12, (0.75, 1.15), 0.08)
        batch = augment.recolour(batch, rng, 0.8)
        batch = augment.blot(augment.blur(batch, rng, 0.25), rng, 0.2)
        prompts = [prompt_with(draw_examples(i, concepts, near, rng)) for i in row[chosen]]
        asked = tokenizer(prompts).input_ids
        sequences = [
            image_tokens + ids + answers[i] for ids, i in zip(asked, row[chosen], strict=True)
        ]
        width = max(map(len, sequences))
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((BATCH, width), -100)
        for k, (sequence, i) in enumerate(zip(sequences, row[chosen], strict=True)):
            ids[k, : len(sequence)] = torch.tensor(sequence)
            labels[k, len(sequence) - len(answers[i]) : len(sequence)] = torch.tensor(answers[i])
        out = captioner(
            pixel_values=normalise(batch),
            input_ids=ids,
            labels=labels,
            attention_mask=(ids != tokenizer.pad_token_id).long(),
        )
        queries = out.qformer_outputs.last_hidden_state.mean(1)
        seen = functional.normalize(model["aligner"](queries), dim=-1)
        logits = model["aligner_scale"].scale.exp() * seen @ known.T
        aligned = functional.cross_entropy(logits, place[row[chosen]], label_smoothing=0.05)
        with torch.no_grad():
            taught = functional.normalize(tower.visual(normalise(batch)), dim=-1)
        away = (1 - (seen * taught).sum(-1)).mean()
        hits = (logits.detach().argmax(1) == place[row[chosen]]).float().mean()
        figures = {
            "caption": float(out.loss.detach()),
            "aligned": float(aligned.detach()),
            "away": float(away.detach()),
            "hits": float(hits),
        }
        return out.loss + 0.5 * aligned + 2.0 * away, figures

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.7))

    def export(model: Any) -> None:
        import copy

        beside = folder.with_name(folder.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        copy.deepcopy(model["captioner"]).half().save_pretrained(beside)
        processor.save_pretrained(beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)

    torch.manual_seed(seed)
    parts_of = {
        "captioner": new_captioner(processor),
        "aligner": torch.nn.Linear(96, names.shape[1]),
        "aligner_scale": Scale(),
    }
    model = torch.nn.ModuleDict(parts_of)
    schedule = Schedule(steps, 3e-3, minutes, warmup=300, average=0.99, weight_decay=0.05)
    train("captioner", model, loss, schedule, work, seed, export)
