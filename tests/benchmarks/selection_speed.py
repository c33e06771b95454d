"""Times NIQE and BLEU on one core: a batch against the plain scipy form of the tests.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.selection_speed

CPU seconds of the process, the least of five rounds, so that other work on the machine counts
little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from PIL import Image
from sklearn.datasets import load_sample_images

from selection.bleu import sentence_bleu
from selection.luma import luma
from selection.niqe import NiqeModel, niqe
from tests.selection import niqe_twin


def milliseconds(function: Callable[[], object], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    model = NiqeModel.published()
    photo = Image.fromarray(load_sample_images().images[0])
    for side in (288, 512, 1024):
        image = photo.resize((side, side), Image.Resampling.BICUBIC)
        batch = [image] * 8
        ours = milliseconds(lambda batch=batch: niqe(batch, model)) / len(batch)
        plane = luma(image)
        plain = milliseconds(
            lambda plane=plane: niqe_twin.niqe(plane, model.mean, model.covariance), 2
        )
        print(
            json.dumps(
                {
                    "side": side,
                    "niqe_ms": round(ours, 1),
                    "plain_ms": round(plain, 1),
                    "times_faster": round(plain / ours, 1),
                }
            )
        )
    caption, references = "a red hat on the old wooden table", ["a red hat on a chair"] * 5
    took = milliseconds(lambda: [sentence_bleu(caption, references) for _ in range(200)]) / 200
    print(json.dumps({"bleu_ms": round(took, 3)}))


if __name__ == "__main__":
    main()
