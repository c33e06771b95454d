"""The most memory of whole runs with reduced models, beside the sum that the README gives.

    python -m tests.benchmarks.peak_memory [--side 1024] [--folder DIR]

Each run is a process of its own, build included, on a CPU: with toy models, then with BLIP-2 of
full width and few layers, and with SDXL's own VAE about a toy U-Net, at 64 pixels and at `--side`.
A run is to take what the toy takes, the weights once, and the decoding of one picture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kb.stopwatch import peak_bytes
from tests import quick_worlds

PAIRS, LACKING = 24, 1
RUN: dict[str, Any] = {
    "generation": {"n": 2, "ungrounded": {"text": 0}},
    "run": {"check": 0},
}


def weights(folder: Path) -> int:
    """Bytes of the safetensors under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def save_models(folder: Path) -> None:
    """Write the models: of toy size, and those whose memory is measured.

    They are BLIP-2 of full width and four layers a part, and SDXL's own VAE about a toy U-Net.
    """
    import torch

    from tests.benchmarks import full_size

    for name, small in (("toy", True), ("reduced", False)):
        model, processor = full_size.blip2("cpu", torch.bfloat16, small, None if small else 4)
        model.save_pretrained(folder / name / "blip2")
        processor.save_pretrained(folder / name / "blip2")
        vae = full_size.autoencoder("cpu", small)
        pipe = full_size.sdxl("cpu", torch.float32, small=True, vae=vae)
        pipe.save_pretrained(folder / name / "sdxl")


def configs(folder: Path, side: int) -> dict[str, tuple[Path, str, int]]:
    """Give for each run its config, the run to subtract, and the bytes of weights that it adds."""
    models = folder / "models"
    captioner = {"kind": "blip2", "dtype": "bfloat16", "max_new_tokens": 8, "batch_size": 2}
    painter = {"kind": "sdxl", "dtype": "float32", "steps": 2, "guidance_scale": 1}
    toy, reduced = (
        {name: str(models / size / name) for name in ("blip2", "sdxl")}
        for size in ("toy", "reduced")
    )
    blip2, sdxl = (weights(Path(reduced[name])) for name in ("blip2", "sdxl"))
    kinds: list[tuple[str, str, dict[str, Any], str, int]] = [
        ("toy BLIP-2", "captioner", captioner | {"model": toy["blip2"]}, "", 0),
        ("BLIP-2", "captioner", captioner | {"model": reduced["blip2"]}, "toy BLIP-2", blip2),
    ]
    toy_sdxl = painter | {"model": toy["sdxl"], "size": 64}
    kinds.append(("toy SDXL at 64", "image_generator", toy_sdxl, "", 0))
    for pixels in (64, side):
        values = painter | {"model": reduced["sdxl"], "size": pixels}
        kinds.append((f"SDXL at {pixels}", "image_generator", values, "toy SDXL at 64", sdxl))
    result = {}
    for name, part, values, base, held in kinds:
        place = folder / name.replace(" ", "-")
        lacking = (LACKING, 0) if part == "captioner" else (0, LACKING)
        quick_worlds.write(place / "data" / "a.parquet", quick_worlds.rows(PAIRS, *lacking))
        result[name] = (quick_worlds.config(place, **RUN, **{part: values}), base, held)
    return result


def peak(config: Path) -> int:
    """Run a config in a process of its own; its largest resident size in bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.peak_memory", "--run", str(config)],
        check=True,
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    if told["failed"]:
        raise SystemExit(f"{config}: {told['failed']} rows failed")
    return int(told["peak"])


def main() -> None:
    """Measure and print a table in GB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=1024, help="pixels of SDXL's larger pictures")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.models:
        save_models(options.models)
        return
    if options.run:
        _, summary = quick_worlds.run(options.run)
        told = {"peak": peak_bytes(), "failed": summary["outcomes"].get("failed", 0)}
        print(json.dumps(told))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        # A process begins with the peak of the one that starts it, so that this one stays small.
        command = [sys.executable, "-m", "tests.benchmarks.peak_memory", "--models"]
        subprocess.run([*command, str(folder / "models")], check=True)
        found: dict[str, int] = {}
        for name, (config, base, held) in configs(folder, options.side).items():
            found[name] = peak(config)
            line = f"{name:18} {found[name] / 1e9:6.2f} GB"
            if base:
                beside = found[name] - found[base] - held
                line += f": {base} and weights of {held / 1e9:.2f}, and {beside / 1e9:.2f} more"
            print(line, flush=True)


if __name__ == "__main__":
    main()
