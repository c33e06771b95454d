"""What drawn pictures are worth at best here: `python -m examples.emoji.ceiling [CONFIG]`.

The evaluation's protocol with pictures hidden, but what takes their place is made of the truth, each
time worse in one respect alone: passed through the image generator's autoencoder, blurred, without
colour, or the same concept as another style draws it. With `--beside-texts` texts are hidden too and
completed by rag4dmc, in every draw, and the pictures are those of the other styles: what a generator
of those styles would reach that makes no mistake. What was done before is not done again.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from examples.emoji.captions import load_concepts
from examples.emoji.pictures import SIZE, load_pictures
from examples.emoji.sources import HERE
from examples.scenes.sprites import TRAINING_STYLES
from pipeline.check.intervals import interval
from pipeline.config.config import Config, load_config
from pipeline.config.variants import VARIANTS
from pipeline.evaluation.draw import Draw
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.protocol.world import World
from pipeline.evaluation.runs import Arm

RATE = 0.7
Change = Callable[[list[Image.Image]], list[Image.Image]]
# An encoded image and its captions.
Pair = tuple[bytes, tuple[str, ...]]


def through_autoencoder(pictures: list[Image.Image]) -> list[Image.Image]:
    """Encode and decode pictures by the image generator's autoencoder."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(HERE / "checkpoints" / "sdxl", subfolder="vae")
    vae = vae.float().eval()
    made: list[Image.Image] = []
    for start in range(0, len(pictures), 64):
        part = np.stack([np.asarray(picture) for picture in pictures[start : start + 64]])
        x = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        shown = ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        made += [Image.fromarray(picture) for picture in shown]
    return made


def blurred(side: int) -> Change:
    """Shrink pictures to a side and enlarge them again."""

    def change(pictures: list[Image.Image]) -> list[Image.Image]:
        small = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
        return [picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for picture in small]

    return change


def without_colour(pictures: list[Image.Image]) -> list[Image.Image]:
    return [picture.convert("L").convert("RGB") for picture in pictures]


CHANGES: dict[str, Change] = {
    "at half the resolution": blurred(SIZE // 2),
    "at a quarter of the resolution": blurred(SIZE // 4),
    "through the image generator's autoencoder": through_autoencoder,
    "without colour": without_colour,
}


def of_style(style: str, names: Mapping[str, str]) -> dict[str, Image.Image]:
    """Another style's own picture of each row's concept, where it has one.

    Parameters
    ----------
    names : mapping of row id to name
    """
    concepts = load_concepts()
    rows, pictures = load_pictures(style)
    drawn: dict[str, np.ndarray] = {}
    for row, picture in zip(rows, pictures, strict=True):
        drawn.setdefault(concepts[row].name, picture)
    return {i: Image.fromarray(drawn[name]) for i, name in names.items() if name in drawn}


def training_pairs(world: World, hidden: Collection[str], made: Mapping[str, Pair]) -> Pairs:
    """The training pairs, with these in place of the hidden ones, or without the row."""
    chosen = []
    for row_id in world.train:
        if row_id not in hidden:
            chosen.append((world.rows[row_id].image, world.rows[row_id].texts))
        elif row_id in made:
            chosen.append(made[row_id])
    return Pairs([image for image, _ in chosen], [texts for _, texts in chosen])


def with_pictures(world: World, pictures: Mapping[str, Image.Image]) -> dict[str, Pair]:
    """Pairs of these pictures and the true texts."""
    pairs = {}
    for row_id, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        pairs[row_id] = (buffer.getvalue(), world.rows[row_id].texts)
    return pairs


def measure(draw: Draw, train: Pairs) -> np.ndarray:
    """Mean R@1 of both directions, a value a seed."""
    settings = draw.settings.downstream
    assert draw.downstream is not None and settings is not None
    means: np.ndarray = draw.downstream.measure(train, settings.seeds).hits().mean(axis=1)
    return means


def altered_truths(config: Config) -> None:
    """Pictures alone are hidden, in the first draw."""
    settings = config.evaluation.model_copy(update={"missing": "image"})
    draw = Experiment(config.model_copy(update={"evaluation": settings})).draw()
    world = draw.world
    hidden = set(world.masks([RATE])[0].hidden)
    ids = [row_id for row_id in world.train if row_id in hidden]
    opened = [Image.open(io.BytesIO(world.rows[row_id].image)).convert("RGB") for row_id in ids]
    truth = [picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS) for picture in opened]
    named = {row_id: world.rows[row_id].texts[0] for row_id in ids}
    made = {"dropped": {}, "the truth": dict(zip(ids, truth, strict=True))}
    made |= {name: dict(zip(ids, change(truth), strict=True)) for name, change in CHANGES.items()}
    made |= {f"{style}'s own pictures": of_style(style, named) for style in TRAINING_STYLES}
    ends: list[float] = []
    for name, pictures in made.items():
        train = training_pairs(world, hidden, with_pictures(world, pictures))
        found = interval(measure(draw, train))
        ends = ends if len(ends) == 2 else [*ends, found.mean]
        share = (
            f", {(found.mean - ends[0]) / (ends[1] - ends[0]):.0%} of the way" if ends[1:] else ""
        )
        print(f"{name}: {len(train)} pairs, mean R@1 {found}{share}", flush=True)


def beside_texts(config: Config) -> None:
    """Texts and pictures are hidden; the texts are rag4dmc's, the pictures another style's."""
    experiment = Experiment(config)
    means: dict[str, list[float]] = {}
    for number in range(config.evaluation.draws):
        draw = experiment.draw(number)
        world, masked = draw.world, draw.world.masks([RATE])[0]
        rows = draw.runs.job_of(Arm(VARIANTS["rag4dmc"], masked)).completed().to_table()
        texts: dict[str, Pair] = {
            row_id: (world.rows[row_id].image, (text,) if isinstance(text, str) else tuple(text))
            for row_id, text in zip(rows["id"].to_pylist(), rows["text"].to_pylist(), strict=True)
            if masked.hidden.get(row_id) == "text" and text
        }
        pictures = {
            i: world.rows[i].texts[0] for i, half in masked.hidden.items() if half == "image"
        }
        truth = {i: (world.rows[i].image, world.rows[i].texts) for i in masked.hidden}
        made = {"drop": {}, "complete": truth, "texts alone": texts}
        made |= {
            f"texts and {style}'s own pictures": texts
            | with_pictures(world, of_style(style, pictures))
            for style in TRAINING_STYLES
        }
        for name, pairs in made.items():
            found = float(measure(draw, training_pairs(world, masked.hidden, pairs)).mean())
            means.setdefault(name, []).append(found)
            print(f"draw {number}, {name}: mean R@1 {found:.4f}", flush=True)
    drop, complete = (np.mean(means[name]) for name in ("drop", "complete"))
    for name, found in means.items():
        share = (np.mean(found) - drop) / (complete - drop)
        print(f"{name}: mean R@1 {np.mean(found):.4f}, {share:.0%} of the way")


def main() -> None:
    """Measure every change and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=HERE / "evaluate.yaml")
    parser.add_argument("--beside-texts", action="store_true")
    options = parser.parse_args()
    config = load_config(options.config)
    if options.beside_texts:
        beside_texts(config)
    else:
        altered_truths(config)


if __name__ == "__main__":
    main()
