"""Stages `encoder` and `judge`: two open_clip models of one shape from different seeds.

A batch holds scenes, each drawn in both training styles: pictures are contrasted with what is told
of them and with each other, and texts in one made-up dialect with each other. A scene holds several
things, and few of them tell it from the others of a batch; so the parts of a picture, and what
either tower makes of a whole scene, must also tell which things are there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.grammar import PLAIN
from examples.scenes.scenes import Scene
from examples.scenes.things import GROUNDS
from examples.scenes.training import augment
from examples.scenes.training.loop import Schedule, train
from examples.scenes.training.means import Means, draw_seed
from examples.scenes.training.pool import Pool, load_pool
from examples.scenes.training.texts import foreign_words, learn_tokenizer, made_up_dialect
from examples.scenes.training.towers import (
    EMBED_DIM,
    PARTS,
    encode_text,
    look_whole,
    new_encoder,
    normalise,
    settle_statistics,
    write_encoder,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 64
# Share of a batch that is told in a made-up dialect, twice; share of batches that are blurred.
STRANGE, BLURRED = 0.3, 0.5
# On how many grounds the scenes of a batch stand: on one, hardly anything but the things tells them
# apart, which a batch of all grounds leaves unlearned.
GROUNDS_AT_ONCE = 2
# How much of a contrast's target lies with scenes that share things.
SHARED = 0.5
# By how much a cosine to the direction of a thing counts.
SHARPNESS = 20.0


def contrast(
    a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, alike: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric cross entropy of matching rows (Radford et al. 2021, figure 3).

    Parameters
    ----------
    a, b : Tensor of shape (n, d)
        Unit rows.
    alike : Tensor of shape (n, n), optional
        How much each row of `a` has to do with each of `b`, symmetric; rows of one scene alone have
        where it is left out.
    """
    import torch
    from torch.nn import functional

    logits = scale * a @ b.T
    target = torch.eye(len(a), device=a.device)
    if alike is not None:
        target = (1 - SHARED) * target + SHARED * alike / alike.sum(1, keepdim=True)
    ahead = functional.cross_entropy(logits, target, label_smoothing=0.02)
    return (ahead + functional.cross_entropy(logits.T, target, label_smoothing=0.02)) / 2


def quarter(cells: np.ndarray) -> np.ndarray:
    """Give the labels (n, 4, 4) of cells twice as wide: what two opposite ones agree on, or -1."""
    first, second = cells[:, ::2, ::2], cells[:, ::2, 1::2]
    third, fourth = cells[:, 1::2, ::2], cells[:, 1::2, 1::2]
    return np.where(first == fourth, first, np.where(second == third, second, -1))


def quarters(cells: np.ndarray, things: int) -> np.ndarray:
    """Give how much of what each quarter shows is which thing, from labels (n, 8, 8).

    Returns
    -------
    float16 array of shape (n, 4, things)
        Rows that sum to one, or to nothing where a quarter shows the ground alone.
    """
    n = len(cells)
    parts = cells.reshape(n, 2, 4, 2, 4).swapaxes(2, 3).reshape(n * 4, 16)
    counts = np.zeros((n * 4, things + 1), np.float16)
    np.add.at(counts, (np.arange(n * 4)[:, None], parts), 1)
    shares = counts[:, :things] / np.maximum(counts[:, :things].sum(1, keepdims=True), 1)
    return shares.reshape(n, 4, things)


class Answers:
    """What is there to be told of each scene of a pool, as arrays."""

    def __init__(self, pool: Pool) -> None:
        place = {thing: i for i, thing in enumerate(pool.things)}
        self.things = np.zeros((len(pool.scenes), len(pool.things)), np.float16)
        self.grounds = np.asarray([GROUNDS.index(scene.ground) for scene in pool.scenes])
        for row, scene in enumerate(pool.scenes):
            for group in scene.groups:
                self.things[row, place[group.thing]] = 1 / len(scene.groups)
        self.quarters = quarters(pool.cells, len(pool.things))

    def draw(self, rng: np.random.Generator, scenes: int, rows: int) -> np.ndarray:
        """Draw a batch of the first `scenes` scenes, all on a few grounds."""
        grounds = rng.choice(len(GROUNDS), GROUNDS_AT_ONCE, replace=False)
        found = np.flatnonzero(np.isin(self.grounds[:scenes], grounds))
        return rng.choice(found, min(rows, len(found)), replace=False)


def new_heads(things: int) -> nn.ModuleDict:
    """Make layers that name things and ground from an embedding, and things from parts.

    They learn beside the encoder and are not exported.
    """
    from torch import nn

    return nn.ModuleDict(
        {
            "things": nn.Linear(EMBED_DIM, things, bias=False),
            "ground": nn.Linear(EMBED_DIM, len(GROUNDS), bias=False),
            "part": nn.Conv2d(PARTS, things, 1),
            "quarter": nn.Conv2d(2 * PARTS, things, 1),
        }
    )


def told(heads: Any, embedding: torch.Tensor, things: torch.Tensor, ground: torch.Tensor) -> Any:
    """Give the loss of what unit embeddings (n, d) tell of the things and the ground.

    Each has a direction of its own, which embeddings of either half are to have a share of: cosines
    are compared, so that a class is learned as soon as its direction is found.
    """
    from torch.nn import functional

    def logits(head: str) -> torch.Tensor:
        return SHARPNESS * embedding @ functional.normalize(heads[head].weight, dim=-1).T

    named = functional.cross_entropy(logits("things"), things)
    return named + 0.2 * functional.cross_entropy(logits("ground"), ground)


def texts_of(
    scenes: list[Scene], rng: np.random.Generator, foreign: tuple[str, ...]
) -> tuple[list[str], list[str], list[str]]:
    """Tell scenes: the last of them in made-up dialects, and those once more in another order.

    Returns
    -------
    plain, strange, again : list of str
        Together the first two tell each scene once.
    """
    strange, again = [], []
    known = len(scenes) - round(STRANGE * len(scenes))
    for scene in scenes[known:]:
        names = [group.thing.name for group in scene.groups]
        dialect = made_up_dialect(rng, names, foreign, float(rng.choice([0.35, 0.7, 1.0])))
        order = made_up_dialect(rng, (), foreign, 0.0)
        strange.append(dialect.tell(scene))
        told = replace(order, grounds=dialect.grounds, places=dialect.places, names=dialect.names)
        again.append(told.tell(scene))
    return [PLAIN.tell(scene) for scene in scenes[:known]], strange, again


def train_encoder(name: str, work: Path, folder: Path, seed: int, means: Means) -> None:
    """Train one encoder on a pool of scenes and write it to `folder`."""
    import torch
    from torch.nn import functional

    tokenizer = learn_tokenizer(work / "tokenizer", work)
    foreign = foreign_words(work)
    scenes = means.scenes
    pool = load_pool(work, scenes)
    answers = Answers(pool)
    take = means.hold(pool.pictures)
    things = torch.from_numpy(answers.things).to(means.device)
    grounds = torch.from_numpy(answers.grounds).to(means.device)
    cells = torch.from_numpy(quarter(pool.cells)).to(means.device)
    held_by_quarters = torch.from_numpy(answers.quarters).to(means.device)

    def batch(rng: np.random.Generator) -> dict[str, Any]:
        first = answers.draw(rng, scenes, means.rows(BATCH))
        # A scene is told as one of its two pictures shows it: their colours may differ.
        style = rng.integers(0, 2, len(first)) * scenes
        told_of = [pool.scenes[i] for i in first + style]
        tokens = [
            tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
            for texts in texts_of(told_of, rng, foreign)
        ]
        rows = np.concatenate([first, first + scenes])
        return {"rows": rows, "tokens": tokens, "seed": draw_seed(rng)}

    def loss(module: Any, given: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model, heads = module["encoder"], module["heads"]
        rows, rng = given["rows"], np.random.default_rng(given["seed"])
        x = augment.move(take(rows), rng, 4, (0.9, 1.12), 0.04, False, "edge")
        x = augment.recolour(x, rng, 0.4)
        if rng.random() < BLURRED:
            x = augment.blur(x, rng, 0.3)
        x = normalise(augment.blot(x, rng, 0.1))
        images, parts, quarter_parts = look_whole(model.visual, x)
        read_texts = [encode_text(model, tokens) for tokens in given["tokens"]]
        # What is compared is compared in full precision.
        with torch.autocast(x.device.type, enabled=False):
            images = functional.normalize(images.float(), dim=-1)
            plain, strange, again = (
                functional.normalize(text.float(), dim=-1) for text in read_texts
            )
            a, b = images.chunk(2)
            text = torch.cat([plain, strange])
            scale = model.logit_scale.exp().clamp(max=50)
            there, ground = things[rows].float(), grounds[rows]
            alike = there[: len(a)] @ there[: len(a)].T
            contrasts = contrast(a, text, scale, alike) + contrast(b, text, scale, alike)
            contrasts = contrasts + contrast(a, b, scale, alike)
            same = contrast(strange, again, scale)
            seen = told(heads, images, there, ground)
            read = told(heads, plain, there[: len(plain)], ground[: len(plain)])
        labels = cells[rows].long()
        part_logits = heads["part"](parts)
        shown = functional.cross_entropy(part_logits, labels, ignore_index=-1)
        held = held_by_quarters[rows].float().flatten(0, 1)
        spoken = heads["quarter"](quarter_parts).flatten(2).transpose(1, 2).flatten(0, 1)
        there_is = held.sum(1) > 0
        shown = shown + functional.cross_entropy(spoken[there_is], held[there_is])
        value = contrasts / 3 + 0.3 * same + seen + 0.5 * read + 0.4 * shown
        with torch.no_grad():
            own = torch.arange(len(plain), device=plain.device)
            hits = (a[: len(plain)] @ plain.T).argmax(1) == own
            right = (part_logits.argmax(1) == labels)[labels >= 0].float().mean()
            best = (images @ functional.normalize(heads["things"].weight, dim=-1).T).argmax(1)
            first_right = (there.gather(1, best[:, None]) > 0).float().mean()
        figures = {
            "hits": hits.float().mean(),
            "same": same.detach(),
            "seen": seen.detach(),
            "read": read.detach(),
            "parts": right,
            "first": first_right,
        }
        return value, figures

    def export(module: Any) -> None:
        settle_statistics(module["encoder"].visual, take, len(pool.scenes), means.device)
        write_encoder(module["encoder"], tokenizer, folder)

    torch.manual_seed(seed)
    encoder: Any = new_encoder(tokenizer)
    with torch.no_grad():
        encoder.logit_scale.fill_(math.log(15))
    # A quarter faster on a CPU, with as few channels as these.
    encoder.visual.to(memory_format=torch.channels_last)
    module = torch.nn.ModuleDict({"encoder": encoder, "heads": new_heads(len(pool.things))})
    schedule = Schedule(
        means.steps, 2e-3, means.minutes, warmup=60, average=0.995, weight_decay=0.05
    )
    train(name, module, loss, schedule, work, seed, export, batch=batch, **means.how())
