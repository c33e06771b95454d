"""Stage `sight`: the captioner's eyes, before it learns to speak (BLIP-2's first training stage).

Vision tower and Q-Former learn what there is to be told of a scene: one query each for the ground
and for each place that a group may have, which must say what stands there, how many, and in what
colour. The patches of the vision tower must say what they show; and they learn from a teacher, the
image tower of the stage `encoder`, for a convolution finds what styles have in common sooner than a
transformer does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.scenes import PLACES
from examples.scenes.things import COLOURS, GROUNDS
from examples.scenes.training import augment
from examples.scenes.training.blip2 import WIDTH, learn_processor, new_captioner
from examples.scenes.training.loop import Schedule, train
from examples.scenes.training.means import Means, draw_seed
from examples.scenes.training.pool import CELLS, Pool, load_pool
from examples.scenes.training.towers import EMBED_DIM, PARTS, look, normalise

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 64
# Queries 1 to 5 tell of the groups at these places, query 0 of the ground.
ASKED = (*PLACES, "anywhere")
SHADES = (*COLOURS, "grey")
MOST = 4


def new_eyes(captioner: Any, things: int) -> nn.ModuleDict:
    """Hold the parts of a captioner that see, and layers that say what they see."""
    import torch
    from torch import nn

    parts = {
        name: module
        for name, module in captioner.named_children()
        if name in ("vision_model", "qformer")
    }
    eyes = nn.ModuleDict(parts)
    eyes.register_parameter("query_tokens", captioner.query_tokens)
    eyes["thing"] = nn.Linear(WIDTH, things + 1)
    eyes["count"] = nn.Linear(WIDTH, MOST + 1)
    eyes["colour"] = nn.Linear(WIDTH, len(SHADES) + 1)
    eyes["ground"] = nn.Linear(WIDTH, len(GROUNDS))
    eyes["patch"] = nn.Linear(WIDTH, things + 1)
    eyes["part"] = nn.Linear(WIDTH, PARTS)
    eyes["whole"] = nn.Linear(WIDTH, EMBED_DIM)
    with torch.no_grad():
        captioner.query_tokens.normal_(0, 0.5)
    return eyes


def ask(eyes: Any, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the Q-Former's answers (n, queries, width) to normalised pictures, and all patches."""
    seen = eyes["vision_model"](pictures).last_hidden_state
    queries = eyes.query_tokens.expand(len(pictures), -1, -1)
    answers = eyes["qformer"](query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
    return answers, seen[:, 1:]


class Lessons:
    """What the queries are to say of each scene of a pool.

    Attributes
    ----------
    thing, count, colour : Tensor of shape (n, 5)
        For each place; the last thing and colour, and a count of 0, where there is nothing or no
        clear one.
    ground : Tensor of shape (n,)
    """

    def __init__(self, pool: Pool, device: str) -> None:
        import torch

        n = len(pool.scenes)
        place = {thing: i for i, thing in enumerate(pool.things)}
        thing = np.full((n, len(ASKED)), len(pool.things))
        count = np.zeros((n, len(ASKED)), int)
        colour = np.full((n, len(ASKED)), len(SHADES))
        for row, scene in enumerate(pool.scenes):
            for group in scene.groups:
                k = ASKED.index(group.place)
                thing[row, k] = place[group.thing]
                count[row, k] = group.count
                if group.colour:
                    colour[row, k] = SHADES.index(group.colour)
        ground = np.asarray([GROUNDS.index(scene.ground) for scene in pool.scenes])
        self.thing, self.count, self.colour, self.ground = (
            torch.from_numpy(part).to(device) for part in (thing, count, colour, ground)
        )


def augmented(x: torch.Tensor, rng: np.random.Generator, strength: float) -> torch.Tensor:
    """Give pictures on [0, 1] normalised, moved, recoloured and blurred as `strength` says."""
    x = augment.move(x, rng, 4, (0.9, 1.12), 0.04, False, "edge")
    x = augment.recolour(x, rng, 0.5 * strength)
    return normalise(augment.blot(augment.blur(x, rng, 0.3 * strength), rng, 0.1 * strength))


def train_sight(work: Path, encoder: Path, seed: int, means: Means) -> None:
    """Train the eyes of a captioner; `open_eyes` gives them to one."""
    import open_clip
    import torch
    from torch.nn import functional

    pool = load_pool(work, means.scenes)
    lessons = Lessons(pool, means.device)
    take = means.hold(pool.pictures)
    teacher: Any = open_clip.create_model_and_transforms(f"local-dir:{encoder}")[0]
    teacher = teacher.visual.float().eval().to(means.device)
    nothing = len(pool.things)
    cells = np.where(pool.cells < 0, nothing, pool.cells).astype(np.int64)
    cells_shown = torch.from_numpy(cells).flatten(1).to(means.device)
    # Three places in five, and patches in four, show nothing.
    rare = torch.ones(nothing + 1, device=means.device)
    rare[nothing] = 0.2

    def batch(rng: np.random.Generator) -> dict[str, Any]:
        rows = np.sort(rng.choice(len(pool.scenes), means.rows(BATCH)))
        return {"rows": rows, "seed": draw_seed(rng)}

    def loss(eyes: Any, given: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        at = given["rows"]
        x = augmented(take(at), np.random.default_rng(given["seed"]), 1.0)
        answers, patches = ask(eyes, x)
        with torch.no_grad():
            whole, parts = look(teacher, x)
        spoken = answers[:, 1 : 1 + len(ASKED)].flatten(0, 1)
        things = lessons.thing[at].flatten()
        thing_logits = eyes["thing"](spoken)
        named = functional.cross_entropy(thing_logits, things, rare, label_smoothing=0.03)
        counted = functional.cross_entropy(eyes["count"](spoken), lessons.count[at].flatten())
        coloured = functional.cross_entropy(eyes["colour"](spoken), lessons.colour[at].flatten())
        ground = functional.cross_entropy(eyes["ground"](answers[:, 0]), lessons.ground[at])
        shown = functional.cross_entropy(
            eyes["patch"](patches).flatten(0, 1), cells_shown[at].flatten(), rare
        )
        square = patches.transpose(1, 2).unflatten(2, (CELLS, CELLS))
        square = functional.avg_pool2d(square, 2).flatten(2).transpose(1, 2)
        alike = functional.cosine_similarity(
            eyes["part"](square).float(), parts.float().flatten(2).transpose(1, 2), dim=-1
        )
        agrees = functional.cosine_similarity(
            eyes["whole"](answers.mean(1)).float(), whole.float(), dim=-1
        )
        taught = (1 - alike).mean() + (1 - agrees).mean()
        value = 2 * named + 0.7 * counted + 0.7 * coloured + 0.3 * ground + shown + taught
        with torch.no_grad():
            right = (thing_logits.argmax(1) == things)[things != nothing]
        figures = {
            "named": named.detach(),
            "hits": right.float().mean(),
            "counted": counted.detach(),
            "coloured": coloured.detach(),
            "shown": shown.detach(),
            "taught": taught.detach(),
        }
        return value, figures

    torch.manual_seed(seed)
    captioner = new_captioner(learn_processor(work / "processor", work))
    eyes = new_eyes(captioner, nothing)
    schedule = Schedule(
        means.steps, 1.5e-3, means.minutes, warmup=200, average=0.997, weight_decay=0.03
    )
    how = means.alone().how()
    train("sight", eyes, loss, schedule, work, seed, lambda model: None, batch=batch, **how)


def open_eyes(captioner: Any, things: int, work: Path) -> nn.Module:
    """Give a captioner the eyes that the stage left, which `ask` takes."""
    import torch

    eyes = new_eyes(captioner, things)
    state = torch.load(work / "state" / "sight.pt", weights_only=False, map_location="cpu")
    learned = torch.optim.swa_utils.AveragedModel(eyes, use_buffers=True)
    learned.load_state_dict(state["average"])
    eyes.load_state_dict(learned.module.state_dict())
    return eyes.eval()


def eyes_of(captioner: Any, things: int) -> nn.Module:
    """Give the eyes of a captioner that has learned to see, which `ask` takes."""
    import torch

    asked = captioner.query_tokens.detach().clone()
    eyes = new_eyes(captioner, things)
    with torch.no_grad():
        captioner.query_tokens.copy_(asked)
    return eyes.eval()
