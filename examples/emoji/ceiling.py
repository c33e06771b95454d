"""What drawn pictures are worth at best here: `python -m examples.emoji.ceiling [CONFIG]`.

The evaluation's protocol with pictures hidden, but what takes their place is made of the truth, each
time worse in one respect alone: passed through the image generator's autoencoder, blurred, without
colour, or the same concept as another style draws it. Fine-tunings that were done before are not
done again.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from examples.emoji.captions import load_concepts
from examples.emoji.pictures import SIZE, TRAINING_STYLES, load_pictures
from examples.emoji.sources import HERE
from pipeline.config import load_config
from pipeline.evaluation.downstream import Pairs
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.statistics import interval
from pipeline.evaluation.world import World

RATE = 0.7
Change = Callable[[list[Image.Image]], list[Image.Image]]


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


def with_pictures(world: World, hidden: set[str], made: Mapping[str, Image.Image]) -> Pairs:
    """The training pairs, with these pictures in place of the hidden ones, or without the row."""
    chosen = []
    for row_id in world.train:
        row = world.rows[row_id]
        if row_id not in hidden:
            chosen.append((row.image, row.texts))
        elif row_id in made:
            buffer = io.BytesIO()
            made[row_id].save(buffer, "PNG")
            chosen.append((buffer.getvalue(), row.texts))
    return Pairs([image for image, _ in chosen], [texts for _, texts in chosen])


def main() -> None:
    """Measure every change and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=HERE / "evaluate.yaml")
    config = load_config(parser.parse_args().config)
    settings = config.evaluation.model_copy(update={"missing": "image"})
    draw = Experiment(config.model_copy(update={"evaluation": settings})).draw()
    world = draw.world
    hidden = set(world.masks([RATE])[0].hidden)
    ids = [row_id for row_id in world.train if row_id in hidden]
    opened = [Image.open(io.BytesIO(world.rows[row_id].image)).convert("RGB") for row_id in ids]
    truth = [picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS) for picture in opened]

    downstream = draw.downstream
    assert downstream is not None

    def measure(train: Pairs) -> np.ndarray:
        """Mean R@1 of both directions, a value a seed."""
        ranks = downstream.measure(train, downstream.settings.seeds)
        both = [(each == 0).mean(axis=1) for each in (ranks.image_to_text, ranks.text_to_image)]
        means: np.ndarray = np.mean(both, axis=0)
        return means

    named = {row_id: world.rows[row_id].texts[0] for row_id in ids}
    made = {"dropped": {}, "the truth": dict(zip(ids, truth, strict=True))}
    made |= {name: dict(zip(ids, change(truth), strict=True)) for name, change in CHANGES.items()}
    made |= {f"{style}'s own pictures": of_style(style, named) for style in TRAINING_STYLES}
    ends: list[float] = []
    for name, pictures in made.items():
        train = with_pictures(world, hidden, pictures)
        found = interval(measure(train))
        ends = ends if len(ends) == 2 else [*ends, found.mean]
        share = (
            f", {(found.mean - ends[0]) / (ends[1] - ends[0]):.0%} of the way" if ends[1:] else ""
        )
        print(f"{name}: {len(train)} pairs, mean R@1 {found}{share}", flush=True)


if __name__ == "__main__":
    main()
