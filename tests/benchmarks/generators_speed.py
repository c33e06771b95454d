"""What the generators cost beside a bare, hand-written loop of transformers and diffusers.

Run as ``python -m tests.benchmarks.generators_speed captions`` (or ``images``, ``sampling``) from the checkout. The
CPU seconds of the process are measured, not the clock, so that other work on the machine counts less;
the two sides take turns, and the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROWS, CANDIDATES, TOKENS = 8, 4, 40


def pictures(count: int, side: int = 64) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def compare(sides: dict[str, Callable[[], None]], rounds: int, count: int) -> dict[str, float]:
    """Median CPU milliseconds a candidate of each side, taking turns; the first round is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            started = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(of) / count * 1000 for name, of in seconds.items()}


def sampling(rounds: int, vocabulary: int = 50272, rows: int = 16) -> dict[str, float]:
    """Drawing one token of OPT's vocabulary, 16 rows: transformers' filters and multinomial, or ours."""
    import torch
    from transformers import LogitsProcessorList, TopPLogitsWarper

    from generators.sampling import SamplingSettings, SeededSampling

    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    ids = torch.ones(rows, 1, dtype=torch.long)
    warpers = LogitsProcessorList([TopPLogitsWarper(0.9)])

    def bare() -> None:
        for _ in range(TOKENS):
            torch.multinomial(warpers(ids, logits).softmax(-1), 1)

    def ours() -> None:
        draw = SeededSampling(range(rows), SamplingSettings(top_p=0.9))
        for _ in range(TOKENS):
            draw(ids, logits).argmax(-1)

    # Milliseconds of 40 tokens of a caption.
    return compare({"transformers' sampling": bare, "seeded sampling": ours}, rounds, rows)


def captions(folder: Path, rounds: int) -> dict[str, float]:
    """Captions of 8 rows, 4 each, 40 tokens each: bare in batches of 16, ours so, ours one by one."""
    import torch
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    from generators.base import CaptionRequest, Example, derive_seed
    from generators.blip2 import Blip2Captioner, Blip2Settings

    images = pictures(ROWS)
    requests = [
        CaptionRequest(
            f"row-{row}",
            image,
            (Example("p", "a red hat on a tree"),),
            tuple(derive_seed(0, f"row-{row}", number, 1) for number in range(CANDIDATES)),
        )
        for row, image in enumerate(images)
    ]
    single = [
        CaptionRequest(one.row_id, one.image, one.examples, (seed,))
        for one in requests
        for seed in one.seeds
    ]
    ours = Blip2Captioner(Blip2Settings(model="bench", max_new_tokens=TOKENS), {"model": folder})
    ours.load()
    # Every caption takes all its tokens, so that both sides do the same work.
    ours._model.language_model.generation_config.eos_token_id = None
    prompt = ours.prompt([Example("pair", "a red hat on a tree")]).text
    processor = Blip2Processor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    model = Blip2ForConditionalGeneration.from_pretrained(folder).float().eval()

    def bare() -> None:
        for start in range(0, ROWS, 4):
            inputs = processor(
                images=images[start : start + 4],
                text=[prompt] * 4,
                padding=True,
                return_tensors="pt",
            )
            tokens = model.generate(
                **inputs,
                do_sample=True,
                top_p=0.9,
                top_k=0,
                num_return_sequences=CANDIDATES,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
            )
            processor.batch_decode(tokens, skip_special_tokens=True)

    def one_by_one() -> None:
        for request in single:
            ours.generate([request])

    with torch.inference_mode():
        return compare(
            {
                "bare loop, batches of 16": bare,
                "captioner, batches of 16": lambda: void(ours.generate(requests)),
                "captioner, one by one": one_by_one,
            },
            rounds,
            ROWS * CANDIDATES,
        )


def images(folder: Path, rounds: int, steps: int = 10) -> dict[str, float]:
    """Images of 4 rows, 4 each: bare in batches of 8, ours so, ours one by one; with and without img2img."""
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    from generators.base import Example, ImageRequest, derive_seed
    from generators.pictures import covering
    from generators.sdxl import SdxlImageGenerator, SdxlSettings

    rows = 4
    texts = [f"a red hat number {row}" for row in range(rows)]
    requests = [
        ImageRequest(
            f"row-{row}",
            texts[row],
            (Example("p", "a hat", image),),
            tuple(derive_seed(0, f"row-{row}", number, 1) for number in range(CANDIDATES)),
        )
        for row, image in enumerate(pictures(rows))
    ]
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    redraw = StableDiffusionXLImg2ImgPipeline(**pipe.components, add_watermarker=False)
    results: dict[str, float] = {}
    for name, bare_pipe in (("none", pipe), ("img2img", redraw)):
        bare_pipe.set_progress_bar_config(disable=True)
        ours = SdxlImageGenerator(
            SdxlSettings.model_validate({"model": "bench", "grounding": name, "steps": steps}),
            {"model": folder},
        )
        ours.load()
        assert ours._frames is not None
        size = ours._frames.size

        def bare(bare_pipe: Any = bare_pipe, name: str = name, size: Any = size) -> None:
            for start in range(0, rows, 2):
                batch = [one for one in requests[start : start + 2] for _ in one.seeds]
                seeds = [seed for one in requests[start : start + 2] for seed in one.seeds]
                extra = {}
                if name == "img2img":
                    grounds = [covering(one.examples[0].image, size) for one in batch]
                    extra = {"image": grounds, "strength": 0.75}
                bare_pipe(
                    prompt=[one.text for one in batch],
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    num_inference_steps=steps,
                    guidance_scale=6.0,
                    **extra,
                )

        def one_by_one(ours: SdxlImageGenerator = ours) -> None:
            for one in requests:
                for seed in one.seeds:
                    ours.generate([ImageRequest(one.row_id, one.text, one.examples, (seed,))])

        sides = {
            f"{name}: bare loop, batches of 8": bare,
            f"{name}: generator, batches of 8": lambda ours=ours: void(ours.generate(requests)),
            f"{name}: generator, one by one": one_by_one,
        }
        results |= compare(sides, rounds, rows * CANDIDATES)
    return results


def tiny(part: str, folder: Path) -> Path:
    """A checkpoint of random weights, as the tests have it."""
    from tests.generators import tiny_captioners, tiny_sdxl

    return tiny_sdxl.sdxl(folder) if part == "images" else tiny_captioners.blip2(folder, "opt")


def void(_: object) -> None:
    """Drop a result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("sampling", "captions", "images"))
    parser.add_argument("--model", type=Path, help="a checkpoint; tiny random weights without one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.part == "sampling":
        result = sampling(arguments.rounds)
    else:
        measure = captions if arguments.part == "captions" else images
        with tempfile.TemporaryDirectory() as scratch:
            folder = arguments.model or tiny(arguments.part, Path(scratch))
            result = measure(folder, arguments.rounds)
    print(json.dumps({name: round(value, 2) for name, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
