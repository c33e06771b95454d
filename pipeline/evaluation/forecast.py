"""How long an evaluation will take, said before it begins: its pieces measured on a few rows each."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kb.embeddings import MODALITIES
from pipeline.advice.timing import measure
from pipeline.evaluation.draw import Draw
from pipeline.evaluation.measures.downstream import Downstream
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.runs import Arm
from pipeline.job import Job

# Steps of a training that are timed, after a first one.
STEPS = 3


@dataclass(frozen=True)
class Forecast:
    """What an evaluation has to do, and the seconds that it takes at most.

    What is left out: building knowledge bases, further attempts for rows without a valid candidate,
    and what two variants have in common, which is made once.

    Attributes
    ----------
    rows : int
        Rows to complete, of all variants and draws.
    trainings : int
    generating : tuple of float
        Seconds, by the fastest and by the slowest rows that were timed.
    training : float
        Seconds.
    """

    rows: int
    trainings: int
    generating: tuple[float, float]
    training: float

    @property
    def seconds(self) -> tuple[float, float]:
        """All together, least and most."""
        least, most = (part + self.training for part in self.generating)
        return least, most


def forecast(draw: Draw, arms: Sequence[Arm], seeds: int | None, draws: int) -> Forecast:
    """Time the pieces of an evaluation on its first draw, whose arms stand for those of all draws.

    Of each generator, with and without examples, a few rows are generated, for nothing but the
    time; of what learns downstream a few steps are done. What stands already counts for nothing.
    """
    rows, least, most = 0, 0.0, 0.0
    # By what is asked of the generators: seconds of one candidate of a missing half.
    pace: dict[str, dict[str, tuple[float, float]]] = {}
    for arm in arms:
        if not arm.variant.generates:
            continue
        job = Job(draw.runs.config_of(arm), draw.progress)
        left = {half: job.plan().pending[half] for half in job.config.made}
        rows += sum(left.values())
        key = _asked(job)
        if any(left.values()) and key not in pace:
            asked: dict[str, int] = {half: left.get(half, 0) for half in MODALITIES}
            found = measure(job, asked, {}, dict.fromkeys(MODALITIES, False))
            generation = job.config.generation
            pace[key] = {
                half: (
                    fast / generation.least,
                    slow / generation.most + found["seconds_an_embedding"][half],
                )
                for half, (fast, slow) in found["seconds_a_row"].items()
            }
            job.close()
        for half, count in left.items():
            fast, slow = pace.get(key, {}).get(half, (0.0, 0.0))
            least += count * job.config.generation.least * fast
            most += count * job.config.generation.most * slow
    trainings, training = 0, 0.0
    if (settings := draw.settings.downstream) is not None and draw.downstream is not None:
        count = seeds or settings.seeds
        train = draw.world.pairs_of([i for i in draw.world.train if i not in arms[0].masked.hidden])
        to_do = [count - _held(draw, draw.downstream, arm, count) for arm in arms]
        trainings = sum(to_do)
        if trainings:
            once, a_pair = _training(draw.downstream, train, settings.steps, settings.batch_size)
            prepared = sum(left > 0 for left in to_do) * len(draw.world.train)
            training = trainings * once + prepared * a_pair
    return Forecast(
        draws * rows, draws * trainings, (draws * least, draws * most), draws * training
    )


def _asked(job: Job) -> str:
    """What a generator's pace depends on: itself, and how it is asked."""
    config = job.config
    asked = [
        config.captioner,
        config.image_generator,
        config.generation.model_dump(mode="json", exclude={"n", "attempts"}),
    ]
    return json.dumps(asked, sort_keys=True)


def _held(draw: Draw, downstream: Downstream, arm: Arm, seeds: int) -> int:
    """Trainings of an arm that were done before, as far as its pairs are known yet."""
    if arm.variant.generates:
        return 0
    hidden = {} if arm.variant.name == "complete" else arm.masked.hidden
    return downstream.held(
        draw.world.pairs_of([i for i in draw.world.train if i not in hidden]), seeds
    )


def _training(
    downstream: Downstream, train: Pairs, steps: int, batch_size: int
) -> tuple[float, float]:
    """Seconds of one training, and of preparing a pair."""
    few = Pairs(train.images[:batch_size], train.texts[:batch_size])
    started = time.perf_counter()
    prepared = downstream.prepare(few)
    a_pair = (time.perf_counter() - started) / len(few)
    # The test pairs are prepared once, on the way of the first.
    downstream.learn(prepared, 0, 1)
    spent = []
    for count in (1, 1 + STEPS):
        started = time.perf_counter()
        downstream.learn(prepared, 0, count)
        spent.append(time.perf_counter() - started)
    a_step = max(0.0, (spent[1] - spent[0]) / STEPS)
    return spent[0] + (steps - 1) * a_step, a_pair
