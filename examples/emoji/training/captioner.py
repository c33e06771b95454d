"""Stage `captioner`: a `Blip2ForConditionalGeneration` on an OPT decoder.

Its eyes are those of the stage `sight`, and are held, so that each picture is looked at once. What
learns is to speak of them (BLIP-2's second training stage), by the prompts that the pipeline uses,
with none, one and two examples. Examples are other wordings of the concept, or neighbours of it,
or unrelated, so that it learns to look first.
"""

from __future__ import annotations

import copy
import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.emoji.captions import Concept, in_target, load_concepts
from examples.emoji.training.blip2 import QUERIES, learn_processor, new_captioner, prompt_with
from examples.emoji.training.loop import Schedule, train
from examples.emoji.training.sight import TAUGHT, Lessons, ask, draw, open_eyes
from examples.emoji.training.texts import keywords_only, wording

if TYPE_CHECKING:
    import torch

BATCH = 96
CONFUSED = 6  # names that an example may be drawn from
# How uncertain the queries are made: noise, as a share of their deviation, and the share of another
# picture of the subcategory, each at most. With these the eyes find the name as often as in a style
# that they never saw; with hardly any, examples were not looked at.
NOISE, BLEND = 1.5, 0.7


def draw_examples(
    i: int,
    count: int,
    concepts: tuple[Concept, ...],
    confused: np.ndarray,
    rng: np.random.Generator,
) -> list[str]:
    """Draw example captions: of the concept, of one that looks like it, or of anything.

    Parameters
    ----------
    i : int
        The picture's concept.
    confused : int array
        Concepts that the teacher takes the picture for, as a retrieval would.
    """
    examples = []
    for _ in range(count):
        draw = rng.random()
        if draw < 0.3:
            source = concepts[i]
        elif draw < 0.8:
            source = concepts[int(rng.choice(confused))]
        else:
            source = concepts[int(rng.integers(len(concepts)))]
        said = keywords_only(source, rng) if rng.random() < 0.5 else wording(source, rng)
        examples.append(said)
    return examples


def look_at_all(eyes: Any, lessons: Lessons) -> torch.Tensor:
    """Give the Q-Former's answers (n, queries, width) to all pictures, half of them mirrored."""
    import torch

    rng = np.random.default_rng(0)
    with torch.no_grad():
        return torch.cat(
            [ask(eyes, draw(batch, rng)).half() for batch in lessons.pictures.split(128)]
        )


def doubt(
    queries: torch.Tensor, others: torch.Tensor, spread: float, rng: np.random.Generator
) -> torch.Tensor:
    """Make queries (n, queries, width) uncertain, by others of similar pictures and by noise."""
    import torch

    share, noise = torch.from_numpy(rng.random((2, len(queries), 1, 1), dtype=np.float32))
    mixed = torch.lerp(queries, others, BLEND * share)
    return mixed + NOISE * spread * noise * torch.randn_like(mixed)


def train_captioner(work: Path, folder: Path, seed: int, steps: int, minutes: float) -> None:
    """Train the captioner and write it, with its processor, to `folder`."""
    import torch
    from torch.nn import functional

    processor = learn_processor(work / "processor")
    tokenizer = processor.tokenizer
    concepts = load_concepts()
    torch.manual_seed(seed)
    captioner: Any = new_captioner(processor)
    lessons = Lessons(folder.with_name("encoder"), work, min(TAUGHT, BATCH * steps))
    eyes = open_eyes(captioner, lessons, work)
    seen = look_at_all(eyes, lessons)
    spread = float(seen.float().std())
    known = np.asarray(lessons.known)
    concept = known[lessons.concept.numpy()]
    confused = known[lessons.judged.topk(CONFUSED, dim=1).indices.numpy()]
    rows = np.flatnonzero([in_target(concepts[i]) for i in concept])
    alike: dict[str, list[int]] = defaultdict(list)
    for k in rows:
        alike[concepts[concept[k]].subcategory].append(int(k))
    image_tokens = [tokenizer.convert_tokens_to_ids("<image>")] * QUERIES
    answers = [
        tokenizer(f" {c.name}", add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        for c in concepts
    ]

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = rng.choice(rows, BATCH)
        of = concept[chosen]
        # As many examples throughout the batch: rows of one length are hardly padded.
        count = int(rng.choice(3, p=[0.25, 0.65, 0.1]))
        prompts = [
            prompt_with(draw_examples(i, count, concepts, confused[k], rng))
            for i, k in zip(of, chosen, strict=True)
        ]
        asked = tokenizer(prompts).input_ids
        sequences = [image_tokens + ids + answers[i] for ids, i in zip(asked, of, strict=True)]
        width = max(map(len, sequences))
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((BATCH, width), -100)
        for k, (sequence, i) in enumerate(zip(sequences, of, strict=True)):
            ids[k, : len(sequence)] = torch.tensor(sequence)
            labels[k, len(sequence) - len(answers[i]) : len(sequence)] = torch.tensor(answers[i])
        mates = [rng.choice(alike[concepts[i].subcategory]) for i in of]
        queries = doubt(seen[chosen].float(), seen[mates].float(), spread, rng)
        words = model["language_model"].get_input_embeddings()(ids)
        words = torch.cat([model["language_projection"](queries), words[:, QUERIES:]], dim=1)
        read = model["language_model"].model(
            inputs_embeds=words, attention_mask=(ids != tokenizer.pad_token_id).long()
        )
        said = labels[:, 1:] != -100
        logits = model["language_model"].lm_head(read.last_hidden_state[:, :-1][said])
        value = functional.cross_entropy(logits, labels[:, 1:][said])
        return value, {f"{count} examples": float(value.detach())}

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
    schedule = Schedule(steps, 2e-3, minutes, warmup=300, average=0.998, weight_decay=0.05)
    train("captioner", model, loss, schedule, work, seed, export)
