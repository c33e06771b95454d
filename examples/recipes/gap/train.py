"""Train the captioner that knows photographs alone: `python -m examples.recipes.gap.train data/gap`.

The pictures are looked at once and kept; the training resumes from its state, and a SIGTERM saves it
and stops. What is learned lies in `captioner/` under the folder at every save.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from examples.recipes.gap.lessons import COUNTS, School
from examples.recipes.gap.words import learn_tokenizer, tidied
from examples.scenes.training.loop import Schedule, train
from generators.blip2_settings import Blip2Settings

logger = logging.getLogger(__name__)

STEPS, BATCH, SEED = 16000, 32, 1
# The words of examples are learned as well, for what they are as sentences.
SENTENCE = 0.2
# Those of so many lessons of a batch: scores over a whole vocabulary are what takes the time.
SENTENCES_OF = 8
LOOKED_AT = 64
QUICK = {"width": 32, "layers": 1, "heads": 2, "pointer": 16}


def look_at_all(parquet: Path, name: str, cache: Path) -> np.ndarray:
    """What the eyes see of all pictures, float16 [n, cells, channels], kept on disk as it grows."""
    from examples.recipes.gap.eyes import open_eyes, stacked

    whole = cache / "cells.npy"
    if whole.is_file():
        return np.load(whole, mmap_mode="r")
    import torch

    cache.mkdir(parents=True, exist_ok=True)
    eyes = open_eyes(name)
    parts = []
    for number, pictures in enumerate(_pictures(parquet)):
        part = cache / f"cells-{number:05d}.npy"
        if not part.is_file():
            pixels = stacked([eyes.pixels(picture) for picture in pictures], torch.empty(0))
            beside = part.with_suffix(".new")
            with beside.open("wb") as file:
                np.save(file, eyes.cells(pixels).half().numpy())
            os.replace(beside, part)
            logger.info("looked at %d pictures", number * LOOKED_AT + len(pictures))
        parts.append(part)
    beside = whole.with_suffix(".new")
    with beside.open("wb") as file:
        np.save(file, np.concatenate([np.load(part) for part in parts]))
    os.replace(beside, whole)
    for part in parts:
        part.unlink()
    return np.load(whole, mmap_mode="r")


def _pictures(parquet: Path) -> Iterator[list[bytes]]:
    for batch in pq.ParquetFile(parquet).iter_batches(LOOKED_AT, columns=["image"]):
        yield [image["bytes"] for image in batch["image"].to_pylist()]


def sequences(
    tokenizer: Any, lessons: Sequence[Any], pad: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int [n, length], and what each is: 0 nothing, 1 of the prompt, 2 of the answer."""
    prompts = [tokenizer(Blip2Settings().render(one.examples)).input_ids for one in lessons]
    answers = [tokenizer(f" {one.answer}").input_ids + [end] for one in lessons]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens = np.full((len(lessons), length), pad)
    part = np.zeros((len(lessons), length), np.int64)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        stop = len(prompt) + len(answer)
        tokens[row, :stop] = prompt + answer
        part[row, : len(prompt)], part[row, len(prompt) : stop] = 1, 2
    return tokens, part


def train_captioner(
    folder: Path, eyes: str, steps: int, minutes: float, batch: int = BATCH, quick: bool = False
) -> Path:
    """Train on `photographs/learned.parquet` of a folder, and write `captioner/` there.

    Parameters
    ----------
    folder : Path
        As `worlds.make` wrote it; state and what was looked at are kept under `work/`.
    eyes : str
        See `eyes.open_eyes`.
    quick : bool
        A tiny decoder, for tests.
    """
    import torch

    from examples.recipes.gap.decoder import Shape, SightedDecoder

    learned, out = folder / "photographs" / "learned.parquet", folder / "captioner"
    work = folder / "work"
    captions = pq.read_table(learned, columns=["text"])["text"].to_pylist()
    tokenizer = learn_tokenizer(
        (tidied(text) for own in captions for text in own), work / "tokenizer"
    )
    cells = look_at_all(learned, eyes, work / eyes.replace(":", "-"))
    school = School(cells, captions)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    shape = Shape(
        eyes=eyes,
        channels=cells.shape[2],
        cells=cells.shape[1],
        vocabulary=len(tokenizer),
        end=end,
        pad=pad,
        **(QUICK if quick else {}),  # type: ignore[arg-type]
    )
    torch.manual_seed(SEED)
    model = SightedDecoder(shape)
    logger.info("captioner: %.2f M parameters", sum(p.numel() for p in model.parameters()) / 1e6)

    def loss(model: Any, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        # As many examples throughout the batch: rows of one length are hardly padded.
        count = int(rng.choice(len(COUNTS), p=COUNTS))
        rows = rng.integers(0, len(captions), batch)
        lessons = [school.lesson(int(row), count, rng) for row in rows]
        seen = torch.from_numpy(school.seen(rows, rng, count))
        tokens, part = map(torch.from_numpy, sequences(tokenizer, lessons, pad, end))
        states = model.read(seen, tokens, part > 0).last_hidden_state
        memory = model.remember(states, tokens, part == 1)
        foretelling = states[:, -tokens.shape[1] - 1 : -1]
        # Answers end the rows: the last places hold all of them.
        first = int((part == 2).float().argmax(dim=1).min())
        told = model.tell_of(foretelling[:, first:], memory, tokens[:, first:])
        answers = part[:, first:] == 2
        value = -told[answers].mean()
        figures = {f"{count} examples": float(value.detach())}
        if count:
            spoken = part == 1
            spoken[SENTENCES_OF:] = False
            own = model.decoder.lm_head(foretelling[spoken])
            sentence = torch.nn.functional.cross_entropy(own, tokens[spoken])
            return value + SENTENCE * sentence, figures
        return value, figures

    def export(model: Any) -> None:
        beside = out.with_name(out.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        model.save(beside)
        tokenizer.save_pretrained(beside)
        shutil.rmtree(out, ignore_errors=True)
        beside.rename(out)

    schedule = Schedule(steps, 1e-3, minutes, warmup=min(200, steps), weight_decay=0.05)
    train("captioner", model, loss, schedule, work, SEED, export)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `examples.recipes.gap.worlds` wrote")
    parser.add_argument("--eyes", default="lite0", help="lite0, lite2, or package.module:function")
    parser.add_argument("--steps", type=int, help=f"{STEPS} by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time bound")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few steps of a tiny decoder")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    import torch

    torch.set_num_threads(options.threads)
    # Vanishing gradients of the first steps are subnormal, which slows products ten times.
    torch.set_flush_denormal(True)
    steps = options.steps or (4 if options.quick else STEPS)
    try:
        out = train_captioner(
            options.folder,
            options.eyes,
            steps,
            options.minutes,
            batch=4 if options.quick else BATCH,
            quick=options.quick,
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"train: {error}") from None
    print(f"captioner: {out}")


if __name__ == "__main__":
    main()
