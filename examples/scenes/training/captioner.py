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
from examples.scenes.training.loop import Schedule, save_atomically, train
from examples.scenes.training.means import Means
from examples.scenes.training.pool import Pool, load_pool
from examples.scenes.training.sight import ask, augmented, eyes_of, open_eyes
from examples.scenes.training.texts import foreign_words

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

BATCH = 48
COUNTS = (0.12, 0.3, 0.2, 0.38)  # of none to three examples
# What the eyes say is made uncertain by noise, as a share of its deviation: with none, the eyes are
# surer of the pool than they will ever be of another style, and examples are not looked at.
NOISE = 0.8
# An example after the first is in the same dialect: what it repeats can be foretold from the first.
FORETOLD = 0.3


def look_at_all(eyes: Any, pool: Pool, means: Means, state: Path, cache: Path) -> torch.Tensor:
    """Give the Q-Former's answers (n, queries, width) to all pictures, augmented.

    They are kept on disk until the eyes' `state` is newer than they are.
    """
    import torch

    if not cache.is_file() or cache.stat().st_mtime < state.stat().st_mtime:
        rng = np.random.default_rng(0)
        take, eyes = means.hold(pool.pictures), eyes.to(means.device)
        with torch.no_grad():
            seen = [
                ask(eyes, augmented(take(rows), rng, 1.4))[0].half().cpu()
                for rows in np.array_split(np.arange(len(pool.scenes)), len(pool.scenes) // 64)
            ]
        save_atomically(torch.cat(seen), cache)
        logger.info("captioner: looked at %d pictures", len(pool.scenes))
    answers: torch.Tensor = torch.load(cache, weights_only=True, map_location="cpu")
    return answers.to(means.device)


def doubt(queries: torch.Tensor, spread: float, noise: torch.Tensor) -> torch.Tensor:
    """Make queries (n, queries, width) uncertain, each row by as much as `noise` (n,) has it."""
    import torch

    return queries + NOISE * spread * noise[:, None, None] * torch.randn_like(queries)


def tokens_of(
    tokenizer: Any, lessons: list[tuple[list[str], str]]
) -> list[tuple[list[int], list[float]]]:
    """Give each lesson's ids, and how much the foretelling of each counts."""
    prompts = [prompt_with(examples) for examples, _ in lessons]
    asked = tokenizer(prompts).input_ids
    starts = tokenizer([prompt.split(" Caption 2:")[0] for prompt in prompts]).input_ids
    answers = tokenizer([f" {answer}" for _, answer in lessons], add_special_tokens=False).input_ids
    result = []
    for (examples, _), prompt, first, answer in zip(lessons, asked, starts, answers, strict=True):
        free = len(first) if len(examples) > 1 else len(prompt)
        said = [*answer, tokenizer.eos_token_id]
        weights = [0.0] * free + [FORETOLD] * (len(prompt) - free) + [1.0] * len(said)
        result.append((prompt + said, weights))
    return result


def train_captioner(
    work: Path, folder: Path, seed: int, means: Means, begin: Path | None = None
) -> None:
    """Train the captioner and write it, with its processor, to `folder`.

    It goes on from the captioner in `begin`, its eyes and processor included, where that is given.
    """
    import torch
    from torch.nn import functional
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    processor = (
        learn_processor(work / "processor", work)
        if begin is None
        else Blip2Processor.from_pretrained(begin, local_files_only=True)
    )
    tokenizer = processor.tokenizer
    padding = tokenizer.pad_token_id
    pool = load_pool(work, means.scenes)
    school = School(pool, foreign_words(work))
    torch.manual_seed(seed)
    captioner: Any
    if begin is None:
        captioner, state = new_captioner(processor), work / "state" / "sight.pt"
        eyes = open_eyes(captioner, len(pool.things), work)
    else:
        captioner = Blip2ForConditionalGeneration.from_pretrained(begin, local_files_only=True)
        captioner, state = captioner.float(), begin / "model.safetensors"
        eyes = eyes_of(captioner, len(pool.things))
    cache = work / "pool" / str(means.scenes) / "seen.pt"
    seen = look_at_all(eyes, pool, means, state, cache)
    eyes.to("cpu")
    spread = float(seen[:2000].float().std())
    image_token = tokenizer.convert_tokens_to_ids("<image>")

    def batch(rng: np.random.Generator) -> dict[str, Any]:
        # As many examples throughout the batch: rows of one length are hardly padded.
        count = int(rng.choice(len(COUNTS), p=COUNTS))
        chosen = school.draw_rows(means.rows(BATCH), count, rng)
        lessons = tokens_of(tokenizer, [school.lesson(int(row), count, rng) for row in chosen])
        width = QUERIES + max(len(sequence) for sequence, _ in lessons)
        ids = np.full((len(chosen), width), padding)
        ids[:, :QUERIES] = image_token
        matters = np.zeros((len(chosen), width), np.float32)
        for k, (sequence, weights) in enumerate(lessons):
            ids[k, QUERIES : QUERIES + len(sequence)] = sequence
            matters[k, QUERIES : QUERIES + len(sequence)] = weights
        noise = rng.random(len(chosen), dtype=np.float32)
        return {"rows": chosen, "ids": ids, "matters": matters, "noise": noise, "count": count}

    def loss(model: Any, given: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        ids, matters, count = given["ids"], given["matters"], given["count"]
        queries = doubt(seen[given["rows"]].float(), spread, given["noise"])
        words = model["language_model"].get_input_embeddings()(ids)
        words = torch.cat([model["language_projection"](queries), words[:, QUERIES:]], dim=1)
        read = model["language_model"].model(
            inputs_embeds=words, attention_mask=(ids != padding).long()
        )
        kept = matters[:, 1:] > 0
        logits = model["language_model"].lm_head(read.last_hidden_state[:, :-1][kept])
        errors = functional.cross_entropy(logits, ids[:, 1:][kept], reduction="none")
        weight = matters[:, 1:][kept]
        value = (weight * errors).sum() / weight.sum()
        answers = weight == 1
        right = (logits.detach()[answers].argmax(1) == ids[:, 1:][kept][answers]).float().mean()
        told = errors.detach()[answers].mean()
        return value, {f"{count} examples": told, f"{count} right": right}

    def export(model: Any) -> None:
        beside = folder.with_name(folder.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        whole = copy.deepcopy(captioner).to("cpu")
        whole.language_model.load_state_dict(model["language_model"].state_dict())
        whole.language_projection.load_state_dict(model["language_projection"].state_dict())
        whole.half().save_pretrained(beside)
        processor.save_pretrained(beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)

    speech = ("language_projection", "language_model")
    model = torch.nn.ModuleDict({name: getattr(captioner, name) for name in speech})
    schedule = Schedule(
        means.steps, 2e-3, means.minutes, warmup=200, average=0.998, weight_decay=0.03
    )
    train("captioner", model, loss, schedule, work, seed, export, batch=batch, **means.how())
