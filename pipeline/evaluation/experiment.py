"""An evaluation from start to end: every variant at every missing rate through the one pipeline.

Everything dear is kept by content: embeddings, candidates, knowledge bases, completed rows and
fine-tunings. One more variant, rate or seed costs only itself.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from kb.embeddings import MODALITIES, Modality, opposite
from pipeline.build import Progress, quiet
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.changes import Sweep
from pipeline.evaluation.direct import Direct
from pipeline.evaluation.downstream import Downstream, Pairs
from pipeline.evaluation.found import MODES, gain, measure_retrieval
from pipeline.evaluation.results import Record, Results
from pipeline.evaluation.runs import Arm, Runs
from pipeline.evaluation.variants import VARIANTS
from pipeline.evaluation.world import World
from pipeline.job import Job
from pipeline.lock import hold
from pipeline.parts import Part

logger = logging.getLogger(__name__)


class Experiment:
    """Evaluates a config's settings on its own complete pairs.

    Parameters
    ----------
    config : Config
        Its section `evaluation` says what is compared.
    progress : Progress
        Called with the name of a step, what is done of it, and the total.
    """

    def __init__(self, config: Config, progress: Progress = quiet) -> None:
        self.config = config
        self.settings = config.evaluation
        self.progress = progress
        self.folder = config.folder / "evaluation"
        self.world = World(config, self.folder, progress)
        self.runs = Runs(config, self.world, progress)

    def run(
        self,
        variants: Sequence[str] | None = None,
        rates: Sequence[float] | None = None,
        seeds: int | None = None,
        sweeps: Sequence[Sweep] = (),
    ) -> Results:
        """Complete and measure every arm.

        Parameters
        ----------
        variants, rates, seeds
            In place of those of the settings.
        sweeps
            Each adds its points, of rag4dmc where it is asked for, else of the first variant that
            generates.

        Raises
        ------
        ConfigError
            The dataset or the settings allow no evaluation.
        RunLocked
            Another evaluation of this config is under way.
        """
        run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        with hold(self.folder, run_id):
            arms = self.arms(variants or self.settings.variants, rates, sweeps)
            results = Results(self._facts(run_id))
            for number, arm in enumerate(arms):
                self.progress("variants", number, len(arms))
                self._measure(arm, results, seeds)
            self.progress("variants", len(arms), len(arms))
            if self.downstream is not None:
                results.start = self.downstream.untrained()
            return results

    def arms(
        self,
        variants: Sequence[str],
        rates: Sequence[float] | None = None,
        sweeps: Sequence[Sweep] = (),
    ) -> list[Arm]:
        """Every variant at every rate, and the points of the sweeps."""
        chosen = [VARIANTS[name] for name in variants]
        swept = sorted(
            (variant for variant in chosen if variant.generates), key=lambda v: v.name != "rag4dmc"
        )
        if sweeps and not swept:
            raise ConfigError("--sweep: needs a variant that generates, such as rag4dmc")
        arms = []
        for masked in self.world.masks(rates or self.settings.rates):
            arms += [Arm(variant, masked) for variant in chosen]
            for sweep in sweeps:
                arms += [Arm(swept[0], masked, point, changes) for point, changes in sweep.points()]
        return arms

    @cached_property
    def direct(self) -> Direct:
        return Direct(self.world, self.folder / "direct")

    @cached_property
    def downstream(self) -> Downstream | None:
        """The fine-tuning, where it is asked for."""
        settings = self.settings.downstream
        if settings is None:
            return None
        start = self._start()
        model = next(iter(start.resolve(self.config.base, self.config.run.offline).values()))
        test = self.world.pairs_of(self.world.test)
        return Downstream(settings, model.path, model.revision, test, self.folder / "downstream")

    def _start(self) -> Part:
        """The checkpoint that fine-tuning starts from."""
        given = self.settings.downstream
        assert given is not None
        values = given.start or self.settings.judge or self.config.encoder
        if values.get("kind") != "open_clip":
            raise ConfigError(
                "evaluation.downstream.start: must be an encoder of kind open_clip, which can be"
                f" fine-tuned; got {values.get('kind')!r}"
            )
        from kb.encoders import ENCODERS

        return Part.choose("evaluation.downstream.start", values, ENCODERS)

    def _measure(self, arm: Arm, results: Results, seeds: int | None) -> None:
        """Complete an arm, and add everything that is measured of it."""
        hidden = arm.masked.hidden
        rate, label = arm.masked.rate, arm.label
        train = self.world.pairs_of(
            [i for i in self.world.train if arm.variant.name == "complete" or i not in hidden]
        )
        if arm.variant.generates:
            job = self.runs.job_of(arm)
            table = job.completed().to_table()
            statuses = table["status"].to_pylist()
            for status in dict.fromkeys(statuses):
                results.add(Record(rate, label, "rows", status, statuses.count(status)))
            for one in self.direct.measure(job, table, hidden):
                results.add_direct(rate, label, **one)
            if job.config.generation.grounded:
                results.records += [
                    Record(rate, label, **one) for one in self._retrieval(job, hidden)
                ]
            train = _filled(table, self.world, hidden)
        if self.downstream is not None:
            assert self.settings.downstream is not None
            count = seeds or self.settings.downstream.seeds
            self.progress(f"fine-tune {arm.label} at {arm.masked.rate:g}", 0, count)
            ranks = self.downstream.measure(train, count)
            results.add_ranks(rate, label, ranks, rows=len(train))
            self.progress(f"fine-tune {arm.label} at {arm.masked.rate:g}", count, count)

    def _retrieval(self, job: Job, hidden: Mapping[str, Modality]) -> list[dict[str, Any]]:
        """Quality of the example and recall, by observed half and mode."""
        retriever = job.knowledge_base.retriever
        ids: dict[Modality, list[str]] = {
            observed: [row_id for row_id, half in hidden.items() if half == opposite(observed)]
            for observed in MODALITIES
        }
        found = measure_retrieval(
            retriever,
            {m: self.world.embeddings_of(ids[m], m, judge=False) for m in MODALITIES},
            ids,
            {m: self.world.embeddings_of(ids[m], opposite(m), judge=True) for m in MODALITIES},
            self.world.judged_by_id(retriever.ids.to_pylist()),
        )
        used = job.config.knowledge_base.retrieval.mode
        records: list[dict[str, Any]] = []
        for one in found:
            common = {
                "group": "retrieval",
                "missing": opposite(one["observed"]),
                "mode": one["mode"],
                "used": one["mode"] == used,
            }
            means = {"quality": one["quality"]} | {
                f"gain over {mode}": gain(found, one["observed"], one["mode"], mode)
                for mode in MODES[: MODES.index(one["mode"])]
            }
            records += [
                common | {"measure": measure, "value": mean.mean, "half": mean.half}
                for measure, mean in means.items()
            ]
            records += [common | {"measure": k, "value": one[k]} for k in one if k.startswith("R@")]
        return records

    def _facts(self, run_id: str) -> dict[str, Any]:
        """What a reader has to know beside the figures."""
        downstream = self.settings.downstream
        bench = self.world.judge.bench
        own = bench.identity(bench.config.encoder_part()) == self._own_identity()
        return {
            "name": self.config.name,
            "run_id": run_id,
            **self.world.facts(),
            "n": self.config.generation.n,
            "judge_selects": own,
            "judge": bench.config.encoder.get("model"),
            "start": None if downstream is None else str(self._start().settings.model),
            "downstream": None if downstream is None else downstream.model_dump(mode="json"),
        }

    def _own_identity(self) -> dict[str, Any]:
        bench = self.world.job.bench
        return bench.identity(bench.config.encoder_part())


def _filled(table: pa.Table, world: World, hidden: Mapping[str, Modality]) -> Pairs:
    """The pairs of a completed dataset, in the order of the training ids.

    Rows whose missing half could not be made are left out, as training would leave them out.
    """
    place = {row_id: row for row, row_id in enumerate(table["id"].to_pylist())}
    images = table["image"].combine_chunks().field("bytes").to_pylist()
    texts = table["text"].to_pylist()
    chosen = []
    for row_id in world.train:
        row = place[row_id]
        if images[row] is not None and texts[row]:
            text = texts[row]
            chosen.append((images[row], (text,) if isinstance(text, str) else tuple(text)))
    return Pairs([image for image, _ in chosen], [text for _, text in chosen])
