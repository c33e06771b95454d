"""Train a generator that knows photographs alone: `python -m examples.recipes.gap.train data/gap`.

`--part` says which, the captioner or the image generator. The pictures are looked at once; the training
resumes from its state, and a SIGTERM saves it and stops. What is learned lies in `captioner/` or
`images/` under the folder at every save.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.recipes.gap.lessons import COUNTS, School, sequences
from examples.recipes.gap.photographs import (
    held_out,
    pixels_of,
    read_learned,
    time_left,
    view,
)
from examples.scenes.training.loop import Schedule, as_tensor, convert, train

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

STEPS, BATCH, SEED, RATE = 16000, 16, 1, 1e-3
LOOKED_AT = 64
# Steps from one look at the photographs kept out to the next.
LOOK_EVERY = 200


def look_at_all(
    pixels: torch.Tensor, name: str, cache: Path, views: int = 1, device: str = "cpu"
) -> torch.Tensor:
    """What the eyes see of all views, float16 [views, n, cells, channels], on the device.

    On a CPU, where it takes long, the first view is kept on disk as it grows.
    """
    import torch

    from examples.recipes.gap.eyes import open_eyes

    @functools.cache
    def eyes() -> Any:
        opened = open_eyes(name)
        opened.network.to(device)
        return opened

    rng, found = np.random.default_rng(SEED), []
    for number in range(views):
        parts = []
        for at, some in enumerate(pixels.split(LOOKED_AT)):
            part = cache / f"cells-{at:05d}.npy"
            kept = number == 0 and device == "cpu"
            if kept and part.is_file():
                parts.append(torch.from_numpy(np.load(part)))
                continue
            x = view(some.to(device), eyes().side, number, rng)
            parts.append(eyes().cells(eyes().standardised(x)).half())
            if kept:
                cache.mkdir(parents=True, exist_ok=True)
                beside = part.with_suffix(".new")
                with beside.open("wb") as file:
                    np.save(file, parts[-1].numpy())
                os.replace(beside, part)
                logger.info("looked at %d pictures", at * LOOKED_AT + len(some))
        found.append(torch.cat(parts))
        logger.info("captioner: view %d of %d seen", number + 1, views)
    return torch.stack(found)


def train_captioner(
    folder: Path,
    eyes: str,
    language_model: Path,
    steps: int,
    minutes: float,
    batch: int = BATCH,
    rate: float = RATE,
    views: int = 1,
    device: str = "cpu",
    workers: int = 0,
    save_every: float = 180.0,
) -> Path:
    """Train on the learned half of a folder, and write `captioner/` there.

    Parameters
    ----------
    folder : Path
        As `worlds.make` or `photographs.pack` wrote it; state and what was looked at are kept under
        `work/`.
    eyes : str
        See `eyes.open_eyes`.
    language_model : Path
        A causal language model in transformers' layout. It is copied into the captioner's folder.
    minutes : float
        Time bound, what is prepared counted in.
    views : int
        Of each photograph, looked at beforehand; see `photographs.view`.
    """
    import torch

    from examples.recipes.gap.sighted import (
        LANGUAGE_MODEL,
        Shape,
        SightedModel,
        begin_folder,
        read_language_model,
        save_look,
    )

    begun = time.monotonic()
    out, work = folder / "captioner", folder / "work"
    begin_folder(out, language_model)
    pictures, captions = read_learned(folder)
    cells = look_at_all(pixels_of(pictures), eyes, work / eyes.replace(":", "-"), views, device)
    taught = len(captions) - held_out(len(captions))
    school = School(cells[0].cpu().numpy(), captions, taught)
    # Nothing of it learns: half the precision is enough, and takes half the time.
    speaker, tokenizer = read_language_model(out / LANGUAGE_MODEL, torch.bfloat16)
    end = tokenizer.eos_token_id
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    torch.manual_seed(SEED)
    shape = Shape(eyes, channels=cells.shape[3], cells=cells.shape[2])
    model = SightedModel(speaker.to(device), tokenizer, shape)
    learned = sum(part.numel() for part in model.look.parameters())
    logger.info("captioner: %.2f M parameters learn", learned / 1e6)

    def teach(rng: np.random.Generator, rows: np.ndarray, count: int) -> dict[str, Any]:
        lessons = [school.lesson(int(row), count, rng) for row in rows]
        tokens, part = sequences(tokenizer, lessons, pad, end)
        return {
            "count": count,
            "rows": rows,
            "views": rng.integers(0, views, len(rows)),
            "strange": np.array([lesson.strange for lesson in lessons]),
            "tokens": tokens,
            "part": part,
        }

    def prepare(rng: np.random.Generator) -> dict[str, Any]:
        # As many examples throughout the batch: rows of one length are hardly padded.
        count = int(rng.choice(len(COUNTS), p=COUNTS))
        return teach(rng, rng.integers(0, taught, batch), count)

    unseen = [
        convert(
            teach(np.random.default_rng(SEED), np.arange(taught, len(captions)), count),
            lambda leaf: as_tensor(leaf, device),
        )
        for count in range(len(COUNTS))
    ]

    heard = torch.zeros(len(model.language_model.lm_head.weight), dtype=torch.bool)
    told = tokenizer([f" {text}" for own in school.captions for text in own]).input_ids
    heard[[end, *(token for one in told for token in one)]] = True
    heard = heard.to(device)

    def error(given: dict[str, Any], seen: torch.Tensor) -> torch.Tensor:
        """Of a token of the answers among those of captions and as many others, in nats."""
        tokens, answers = given["tokens"], given["part"] == 2
        states = model.states(seen, tokens, given["part"] > 0)[answers]
        # Scores over a whole vocabulary, of which captions have one word in fifty, take as long as
        # all the layers before them.
        kept = heard.clone()
        kept[torch.randint(len(heard), (int(heard.sum()),), device=heard.device)] = True
        scores = states @ model.language_model.lm_head.weight[kept].T
        places = kept.cumsum(0) - 1
        return torch.nn.functional.cross_entropy(scores.float(), places[tokens[answers]])

    looks = itertools.count()

    # What learns is a part of the model.
    def loss(look: Any, given: Any) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        count = given["count"]
        value = error(given, school.changed(cells[given["views"], given["rows"]], given["strange"]))
        figures: dict[str, float | torch.Tensor] = {f"{count} examples": value.detach()}
        if next(looks) % LOOK_EVERY == 0:
            with torch.no_grad():
                for one in unseen:
                    told = error(one, cells[0, one["rows"]].float())
                    figures[f"kept out, {one['count']}"] = told
        return value, figures

    left = time_left(minutes, begun)
    schedule = Schedule(steps, rate, left, warmup=min(100, steps), weight_decay=0.05)
    train(
        "captioner",
        model.look,
        loss,
        schedule,
        work,
        SEED,
        lambda look: save_look(look, out),
        save_every,
        batch=prepare,
        device=device,
        workers=workers,
    )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `examples.recipes.gap.worlds` wrote")
    parser.add_argument("--part", choices=("captioner", "images"), default="captioner")
    parser.add_argument("--eyes", default="lite0", help="lite0, lite2, or package.module:function")
    parser.add_argument(
        "--language-model", type=Path, help="a causal one; FOLDER/language_model by default"
    )
    parser.add_argument(
        "--autoencoder", type=Path, help="weights of taef2; FOLDER/taef2 by default"
    )
    parser.add_argument("--steps", type=int, help="of the optimizer, at most")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, help="peak of the learning rate")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time bound")
    parser.add_argument("--views", type=int, help="of each photograph, prepared beforehand")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare lessons")
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="a few steps, of a tiny image generator"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    import torch

    torch.set_num_threads(options.threads)
    # Vanishing gradients of the first steps are subnormal, which slows products ten times.
    torch.set_flush_denormal(True)
    # Pictures of one size alone: the quickest way to convolve them is worth a trial.
    torch.backends.cudnn.benchmark = True
    names = ("steps", "batch", "rate", "views")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    common = {name: getattr(options, name) for name in ("minutes", "device", "save_every")}
    if options.quick:
        given = {"steps": 4, "batch": 4, **given}
    try:
        if options.part == "images":
            from examples.recipes.gap.painter import STEPS as PAINTED
            from examples.recipes.gap.painter import train_painter

            weights = options.autoencoder or options.folder / "taef2"
            common["quick"] = options.quick
            out = train_painter(options.folder, weights, **{"steps": PAINTED, **common, **given})
        else:
            speaker = options.language_model or options.folder / "language_model"
            more = {"steps": STEPS, "workers": options.workers, **common, **given}
            out = train_captioner(options.folder, options.eyes, speaker, **more)
    except (ValueError, OSError) as error:
        raise SystemExit(f"train: {error}") from None
    print(f"{options.part}: {out}")


if __name__ == "__main__":
    main()
