"""Stage `sight`: the captioner's eyes, before it learns to speak (BLIP-2's first training stage).

The vision tower and the Q-Former learn from a teacher, the stage `encoder`'s image tower. A small
transformer learns little from three thousand pictures by their captions alone; a convolutional
teacher generalises across styles, and tells for any augmented picture where among all concepts it
belongs. Pictures are augmented and taught once, and then seen many times: the teacher costs as much
as the pupil.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.emoji.captions import load_concepts
from examples.emoji.pictures import TRAINING_STYLES, load_pictures
from examples.emoji.training import augment
from examples.emoji.training.blip2 import learn_processor, new_captioner
from examples.emoji.training.encoder import encode_text, normalise
from examples.emoji.training.loop import Schedule, train
from examples.emoji.training.texts import learn_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 128
TAUGHT = 96_000
SHARP = 30.0  # of the teacher's similarities to the names, as it is taught


def new_eyes(captioner: Any, width: int) -> nn.ModuleDict:
    """Hold the parts of a captioner that see, and a projection of their mean query."""
    import torch

    parts = {
        name: module
        for name, module in captioner.named_children()
        if name in ("vision_model", "qformer")
    }
    eyes = torch.nn.ModuleDict(parts)
    eyes.register_parameter("query_tokens", captioner.query_tokens)
    eyes.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.3)))
    eyes["aligner"] = torch.nn.Linear(captioner.config.qformer_config.hidden_size, width)
    return eyes


def ask(eyes: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Give the Q-Former's answers (n, queries, width) to normalised pictures."""
    seen = eyes["vision_model"](pictures).last_hidden_state
    queries = eyes.query_tokens.expand(len(pictures), -1, -1)
    answers: torch.Tensor = eyes["qformer"](
        query_embeds=queries, encoder_hidden_states=seen
    ).last_hidden_state
    return answers


class Lessons:
    """Augmented pictures with the teacher's embeddings of them, about their means.

    Attributes
    ----------
    pictures : Tensor of shape (n, 3, h, w), uint8
    known : list of int
        The concepts that have a place among the names.
    concept : Tensor of shape (n,)
        Each picture's place among the names.
    wanted : Tensor of shape (n, d)
        The teacher's unit embedding less the mean of all, unit again: the mean is three quarters of
        a raw embedding, so that learning those would hardly tell pictures apart.
    judged : Tensor of shape (n, names)
        The teacher's probabilities of the names, half precision.
    names : Tensor of shape (names, d)
        Text embeddings less their mean, unit again.
    """

    def __init__(self, encoder: Path, work: Path, count: int) -> None:
        import open_clip
        import torch
        from torch.nn import functional

        rng = np.random.default_rng(count)
        concepts = load_concepts()
        # Flags and symbols are no part of the target domain.
        plain = [c.category not in ("Flags", "Symbols") for c in concepts]
        self.known = [i for i, kept in enumerate(plain) if kept]
        place = {i: k for k, i in enumerate(self.known)}
        rows, parts = [], []
        for style in TRAINING_STYLES:
            held, pictures = load_pictures(style)
            keep = np.asarray([i in place for i in held])
            rows.append([place[i] for i in held[keep]])
            parts.append(augment.to_tensor(pictures[keep]))
        row, x = np.concatenate(rows), torch.cat(parts)
        tower: Any = open_clip.create_model_and_transforms(f"local-dir:{encoder}")[0]
        tower = tower.float().eval()
        tokenizer = learn_tokenizer(work / "tokenizer")
        with torch.no_grad():
            tokens = tokenizer(
                [concepts[i].name for i in self.known],
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            names = functional.normalize(encode_text(tower, tokens), dim=-1)
            chosen = torch.from_numpy(rng.integers(0, len(row), count))
            self.concept = torch.from_numpy(row)[chosen]
            self.pictures = torch.empty((count, *x.shape[1:]), dtype=torch.uint8)
            taught, judged = [], []
            for part in torch.arange(count).split(BATCH):
                batch = augment.move(x[chosen[part]], rng, 12, (0.72, 1.15), 0.1)
                batch = augment.recolour(batch, rng, 0.9)
                batch = augment.blot(augment.blur(batch, rng, 0.25), rng, 0.2)
                self.pictures[part] = (batch * 255).round().to(torch.uint8)
                seen = functional.normalize(tower.visual(normalise(batch)), dim=-1)
                taught.append(seen)
                judged.append((SHARP * seen @ names.T).softmax(-1).half())
            self.judged = torch.cat(judged)
            everything = torch.cat(taught)
            self.wanted = functional.normalize(everything - everything.mean(0), dim=-1)
            self.names = functional.normalize(names - names.mean(0), dim=-1)

    def loss(
        self, eyes: Any, seen: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the loss of embeddings (n, d) of the pictures `rows`, and figures to log."""
        import torch
        from torch.nn import functional

        away = (1 - (seen * self.wanted[rows]).sum(-1)).mean()
        logits = eyes.scale.exp() * seen @ self.names.T
        follows = functional.cross_entropy(logits, self.judged[rows].float())
        named = functional.cross_entropy(logits, self.concept[rows], label_smoothing=0.05)
        figures = {
            "away": float(away.detach()),
            "follows": float(follows.detach()),
            "named": float(named.detach()),
            "hits": float((logits.detach().argmax(1) == self.concept[rows]).float().mean()),
        }
        with torch.no_grad():
            eyes.scale.clamp_(max=4.0)
        return 2 * away + 0.5 * follows + 0.5 * named, figures


def draw(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Give normalised pictures (n, 3, h, w) of uint8 ones, each mirrored or not, and shifted."""
    import torch

    x = pictures.float() / 255
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5)
    x[mirrored] = x[mirrored].flip(-1)
    # Drawings end in white, so that what a small shift brings in from the other side is white too.
    x = torch.roll(x, tuple(rng.integers(-2, 3, 2).tolist()), (-2, -1))
    return normalise(x)


def train_sight(work: Path, encoder: Path, seed: int, steps: int, minutes: float) -> None:
    """Train the eyes of a captioner; `open_eyes` gives them to one."""
    import torch
    from torch.nn import functional

    lessons = Lessons(encoder, work, min(TAUGHT, BATCH * steps))

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.from_numpy(rng.integers(0, len(lessons.concept), BATCH))
        answers = ask(model, draw(lessons.pictures[rows], rng))
        seen = functional.normalize(model["aligner"](answers.mean(1)), dim=-1)
        return lessons.loss(model, seen, rows)

    torch.manual_seed(seed)
    captioner = new_captioner(learn_processor(work / "processor"))
    eyes = new_eyes(captioner, lessons.names.shape[1])
    schedule = Schedule(steps, 2e-3, minutes, warmup=200, average=0.998, weight_decay=0.05)
    train("sight", eyes, loss, schedule, work, seed, lambda model: None)


def open_eyes(captioner: Any, lessons: Lessons, work: Path) -> nn.Module:
    """Give a captioner the eyes that the stage left, which `ask` takes."""
    import torch

    eyes = new_eyes(captioner, lessons.names.shape[1])
    state = torch.load(work / "state" / "sight.pt", weights_only=False)
    learned = torch.optim.swa_utils.AveragedModel(eyes, use_buffers=True)
    learned.load_state_dict(state["average"])
    eyes.load_state_dict(learned.module.state_dict())
    return eyes.eval()
