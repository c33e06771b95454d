"""Stage `captioner`: a `Blip2ForConditionalGeneration` on an OPT decoder.

Its eyes are those of the stage `sight`, and are held, so that each picture is looked at once. What
learns is to speak of them (BLIP-2's second training stage), by the prompts that the pipeline uses,
with none and up to three examples, in made-up dialects: words that no checkpoint could know are to
be taken from an example where the picture fits, and everything else is to be told as it is seen.
"""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.training.blip2 import QUERIES, learn_processor, new_captioner, prompt_with
from examples.scenes.training.lessons import School
from examples.scenes.training.loop import Schedule, train
from examples.scenes.training.pool import Pool, load_pool
from examples.scenes.training.sight import ask, augmented, open_eyes
from examples.scenes.training.texts import foreign_words

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

BATCH = 48
COUNTS = (0.2, 0.4, 0.25, 0.15)  # of none to three examples
# What the eyes say is made uncertain by noise, as a share of its deviation: with none, the eyes are
# surer of the pool than they will ever be of another style, and examples are not looked at.
NOISE = 0.8
# An example after the first is in the same dialect: what it repeats can be foretold from the first.
FORETOLD = 0.3


def look_at_all(eyes: Any, pool: Pool, cache: Path) -> torch.Tensor:
    """Give the Q-Former's answers (n, queries, width) to all pictures, augmented; kept on disk."""
    import torch

    if not cache.is_file():
        rng = np.random.default_rng(0)
        with torch.no_grad():
            seen = [
                ask(eyes, augmented(pool.pictures[rows], rng, 1.4))[0].half()
                for rows in np.array_split(np.arange(len(pool.scenes)), len(pool.scenes) // 64)
            ]
        torch.save(torch.cat(seen), cache)
        logger.info("captioner: looked at %d pictures", len(pool.scenes))
    answers: torch.Tensor = torch.load(cache, weights_only=True)
    return answers


def doubt(queries: torch.Tensor, spread: float, rng: np.random.Generator) -> torch.Tensor:
    """Make queries (n, queries, width) uncertain, each row by as much as chance has it."""
    import torch

    noise = torch.from_numpy(rng.random((len(queries), 1, 1), dtype=np.float32))
    return queries + NOISE * spread * noise * torch.randn_like(queries)


def tokens_of(
    tokenizer: Any, examples: list[str], answer: str
) -> tuple[list[int], list[int], list[float]]:
    """Give the ids of a lesson, and for each how much its being foretold counts."""
    prompt = tokenizer(prompt_with(examples)).input_ids
    weights = [0.0] * len(prompt)
    if len(examples) > 1:
        first = tokenizer(prompt_with(examples).split(" Caption 2:")[0]).input_ids
        weights[len(first) :] = [FORETOLD] * (len(prompt) - len(first))
    said = tokenizer(f" {answer}", add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    return prompt, said, weights + [1.0] * len(said)


def train_captioner(
    work: Path, folder: Path, seed: int, steps: int, minutes: float, scenes: int
) -> None:
    """Train the captioner and write it, with its processor, to `folder`."""
    import torch
    from torch.nn import functional

    processor = learn_processor(work / "processor", work)
    tokenizer = processor.tokenizer
    pool = load_pool(work, scenes)
    school = School(pool, foreign_words(work))
    torch.manual_seed(seed)
    captioner: Any = new_captioner(processor)
    eyes = open_eyes(captioner, len(pool.things), work)
    seen = look_at_all(eyes, pool, work / "pool" / str(scenes) / "seen.pt")
    spread = float(seen[:2000].float().std())
    image_tokens = [tokenizer.convert_tokens_to_ids("<image>")] * QUERIES

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        # As many examples throughout the batch: rows of one length are hardly padded.
        count = int(rng.choice(len(COUNTS), p=COUNTS))
        chosen = school.draw_rows(BATCH, count, rng)
        sequences, counted = [], []
        for row in chosen:
            prompt, said, weights = tokens_of(tokenizer, *school.lesson(int(row), count, rng))
            sequences.append(image_tokens + prompt + said)
            counted.append([0.0] * QUERIES + weights)
        width = max(map(len, sequences))
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)
        matters = torch.zeros((BATCH, width))
        for k, (sequence, weights) in enumerate(zip(sequences, counted, strict=True)):
            ids[k, : len(sequence)] = torch.tensor(sequence)
            matters[k, : len(sequence)] = torch.tensor(weights)
        queries = doubt(seen[chosen].float(), spread, rng)
        words = model["language_model"].get_input_embeddings()(ids)
        words = torch.cat([model["language_projection"](queries), words[:, QUERIES:]], dim=1)
        read = model["language_model"].model(
            inputs_embeds=words, attention_mask=(ids != tokenizer.pad_token_id).long()
        )
        kept = matters[:, 1:] > 0
        logits = model["language_model"].lm_head(read.last_hidden_state[:, :-1][kept])
        errors = functional.cross_entropy(logits, ids[:, 1:][kept], reduction="none")
        weight = matters[:, 1:][kept]
        value = (weight * errors).sum() / weight.sum()
        answers = weight == 1
        right = (logits.detach()[answers].argmax(1) == ids[:, 1:][kept][answers]).float().mean()
        told = float(errors.detach()[answers].mean())
        return value, {f"{count} examples": told, f"{count} right": float(right)}

    def export(model: Any) -> None:
        beside = folder.with_name(folder.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        whole = copy.deepcopy(captioner)
        whole.language_model.load_state_dict(model["language_model"].state_dict())
        whole.language_projection.load_state_dict(model["language_projection"].state_dict())
        whole.half().save_pretrained(beside)
        processor.save_pretrained(beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)

    speech = ("language_projection", "language_model")
    model = torch.nn.ModuleDict({name: getattr(captioner, name) for name in speech})
    schedule = Schedule(steps, 2e-3, minutes, warmup=200, average=0.998, weight_decay=0.03)
    train("captioner", model, loss, schedule, work, seed, export)
