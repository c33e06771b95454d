"""What a GPU does with it all, in one call of at most eight minutes.

Each part runs in a process of its own, ends when its time is up, and takes none of the others with
it: full-size BLIP-2 and SDXL of random weights beside bare loops of transformers and diffusers,
an open_clip encoder beside a bare DataLoader, faiss's index and the alignment's neighbours on the GPU
beside the CPU, the training of the mapping, a whole job, and the most memory that each took. It prints one table, for the pages that say "not measured".

    python -m tests.benchmarks.gpu            # on a machine with a GPU
    python -m tests.benchmarks.gpu --small    # the same parts at toy size on a CPU, to know that they run
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Seconds that each part may take at most.
BUDGETS = {
    "captions": 60,
    "images": 100,
    "encoding": 50,
    "index": 70,
    "neighbours": 30,
    "mapping": 60,
    "job": 110,
}
Figures = Iterator[tuple[str, float, str]]


def seconds(run: Callable[[], Any], times: int = 1) -> float:
    """Seconds of a run, after one that warms up; the GPU is waited for."""
    import torch

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    run()
    wait()
    started = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - started) / times


def peak() -> int:
    """Most bytes so far: torch's on a GPU, else this process's."""
    import torch

    from kb.stopwatch import peak_bytes

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()


def forget_peak() -> None:
    """Count the most bytes on a GPU from here on."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def captions(device: str, small: bool) -> Figures:
    """BLIP-2 OPT-2.7B: captions a second, ours and a bare loop's, in batches of 16."""
    import torch

    from generators.base import CaptionRequest, Example
    from generators.blip2 import Blip2Captioner, Blip2Settings
    from tests.benchmarks.generators_speed import pictures

    rows, each, tokens = (2, 2, 4) if small else (8, 4, 40)
    dtype = torch.float32 if device == "cpu" else torch.float16
    model, processor = full_size().blip2(device, dtype, small)
    settings = Blip2Settings(model="built", max_new_tokens=tokens, batch_size=rows * each // 2)
    ours = Blip2Captioner(settings, {})
    ours._model, ours._processor, ours._dtype = model, processor, str(dtype)
    ours._prepare()
    model.language_model.generation_config.eos_token_id = None
    yield "weights", ours.memory() / 1e9, "GB"
    images, pair = pictures(rows, 480), Example("pair", "a red hat on a tree")
    requests = [
        CaptionRequest(f"row-{n}", image, (pair,), tuple(range(each)))
        for n, image in enumerate(images)
    ]
    processor.tokenizer.padding_side = "left"
    prompt = ours.prompt([pair]).text

    def bare() -> None:
        for start in range(0, rows, rows // 2):
            part = images[start : start + rows // 2]
            inputs = processor(
                images=part, text=[prompt] * len(part), padding=True, return_tensors="pt"
            )
            model.generate(
                **inputs.to(device, dtype),
                do_sample=True,
                top_p=0.9,
                top_k=0,
                num_return_sequences=each,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
            )

    with torch.inference_mode():
        yield "bare loop", rows * each / seconds(bare), "captions/s"
    yield "blip2", rows * each / seconds(lambda: _drawn(ours, *requests)), "captions/s"


def images(device: str, small: bool) -> Figures:
    """SDXL at 1024 pixels: images a minute, ours and a bare loop's, and in halves of a batch."""
    import torch
    from diffusers import AutoPipelineForImage2Image

    from generators.base import Example, ImageRequest
    from generators.sdxl import SdxlImageGenerator
    from generators.sdxl_settings import SdxlSettings
    from tests.benchmarks.generators_speed import pictures

    count, steps, side = (2, 2, 64) if small else (4, 30, 1024)
    dtype = torch.float32 if device == "cpu" else torch.float16
    pipe = full_size().sdxl(device, dtype, small)

    class Built(SdxlImageGenerator):
        def _read(self, dtype: Any) -> tuple[Any, Any]:
            return pipe, AutoPipelineForImage2Image.from_pipe(pipe)

    values = {"model": "built", "steps": steps, "batch_size": count, "device": device, "size": side}

    def made(**others: Any) -> SdxlImageGenerator:
        generator = Built(SdxlSettings.model_validate(values | others), {})
        generator.load()
        return generator

    ours, grounded = made(grounding="none"), made(grounding="img2img")
    yield "weights", ours.memory() / 1e9, "GB"
    text, seeds = "a red hat on a tree", tuple(range(count))
    request = ImageRequest("row", text, (), seeds)
    example = Example("pair", "a blue boat", pictures(1, 640)[0])
    with_example = ImageRequest("row", text, (example,), seeds)

    def bare() -> None:
        pipe(
            prompt=[text] * count,
            generator=[torch.Generator("cpu").manual_seed(n) for n in range(count)],
            num_inference_steps=steps,
            guidance_scale=ours.settings.guidance_scale,
            height=side,
            width=side,
        )

    with torch.inference_mode():
        yield "bare loop", 60 * count / seconds(bare), "images/min"
    forget_peak()
    yield "sdxl", 60 * count / seconds(lambda: _drawn(ours, request)), "images/min"
    yield "sdxl, most memory", peak() / 1e9, "GB"
    strength = grounded.settings.strength
    name = f"sdxl from an example's picture at {strength:g}"
    yield name, 60 * count / seconds(lambda: _drawn(grounded, with_example)), "images/min"


def _drawn(generator: Any, *requests: Any) -> None:
    """Generate, and raise where a row failed: an error's time is no generator's."""
    for answer in generator.generate(requests):
        if answer.error is not None:
            raise ValueError(answer.error)


def encoding(device: str, small: bool) -> Figures:
    """Pictures of 640 x 480 from JPEGs on disk through ViT-B-32, ours and a DataLoader's."""
    import tempfile
    from pathlib import Path

    from tests.benchmarks import build_speed

    count = 16 if small else 1024
    with tempfile.TemporaryDirectory() as made:
        model = Path(made) / "model"
        build_speed.write_model(model, "tiny" if small else "ViT-B-32")
        paths = build_speed.write_pictures(Path(made) / "pictures", count, (640, 480))
        found = build_speed.rates(Path(made), paths, model, build_speed.BATCH, 1, alone=False)
    for name, rates in found.items():
        yield name, rates[0], "pictures/s"


def job(device: str, small: bool) -> Figures:
    """A run of models on disk, from the scan to the summary."""
    from tests.benchmarks.gpu_job import figures

    return figures(device, small)


def index(device: str, small: bool) -> Figures:
    """faiss's inverted lists over a million rows of 512: a thousand queries, GPU and CPU."""
    from kb.index import EmbeddingIndex
    from kb.index.kinds import IndexSettings

    base = _unit(3000 if small else 1_000_000, 512)
    queries = base[: 100 if small else 1000]
    started = time.perf_counter()
    built = EmbeddingIndex.build(base, IndexSettings(index="ivf", probes=32), device=device)
    yield "building", time.perf_counter() - started, "s"
    yield f"search on {device}", 1000 * seconds(lambda: built.search(queries, 50)), "ms"
    built.device = "cpu"
    yield "search on the CPU", 1000 * seconds(lambda: built.search(queries, 50)), "ms"


def neighbours(device: str, small: bool) -> Figures:
    """Mutual neighbours under CSLS of the alignment's largest sample."""
    from kb.alignment.csls import mutual_neighbours

    count = 500 if small else 10_000
    one, other = _unit(count, 512), _unit(count, 512, 1)
    for where in dict.fromkeys((device, "cpu")):
        found = seconds(lambda where=where: mutual_neighbours(one, other, 10, device=where))  # type: ignore[misc]
        yield f"neighbours on {where}", found, "s"


def mapping(device: str, small: bool) -> Figures:
    """Fitting the mapping of 512-d embeddings, its contest included."""
    from kb.mapping import CrossModalMapping

    count = 200 if small else 20_000
    pairs = {"image": _unit(count, 512), "text": _unit(count, 512, 1)}
    for where in dict.fromkeys((device, "cpu") if small else (device,)):
        started = time.perf_counter()
        CrossModalMapping(device=where).fit(pairs["image"], pairs["text"])
        yield f"fit on {where}", time.perf_counter() - started, "s"


def _unit(count: int, width: int, seed: int = 0) -> Any:
    import numpy as np

    rows = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def full_size() -> Any:
    from tests.benchmarks import full_size

    return full_size


PARTS: dict[str, Callable[[str, bool], Figures]] = {
    "captions": captions,
    "images": images,
    "encoding": encoding,
    "index": index,
    "neighbours": neighbours,
    "mapping": mapping,
    "job": job,
}


def run_part(name: str, small: bool) -> None:
    """Do one part and print each figure as it is known, as JSON."""
    import torch

    device = "cuda" if torch.cuda.is_available() and not small else "cpu"
    for figure in PARTS[name](device, small):
        print(json.dumps(figure), flush=True)
    print(json.dumps(("most memory", peak() / 1e9, "GB")), flush=True)


def measure(small: bool, budgets: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """The figures of all parts; a part that failed or ran out of time says so in the place of one."""
    found: list[dict[str, Any]] = []
    for name, budget in (budgets or BUDGETS).items():
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--part", name]
        command += ["--small"] * small
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=budget)
            out, why = done.stdout, None
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        except subprocess.TimeoutExpired as error:
            # What was printed until then comes as bytes, whatever was asked for.
            out = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
            why = f"not done within {budget} s"
        for line in out.splitlines():
            if line.startswith("["):
                what, value, unit = json.loads(line)
                found.append({"part": name, "what": what, "value": value, "unit": unit})
        if why is not None:
            found.append({"part": name, "what": "failed", "value": None, "unit": why})
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| part | what | figure |", "| --- | --- | --- |"]
    for one in found:
        figure = one["unit"] if one["value"] is None else f"{one['value']:.4g} {one['unit']}"
        lines.append(f"| {one['part']} | {one['what']} | {figure} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--part", choices=list(PARTS))
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part, arguments.small)
    else:
        print(table(measure(arguments.small)))
