"""An evaluation from start to end: every variant at every missing rate through the one pipeline.

Everything dear is kept by content: embeddings, candidates, knowledge bases, completed rows and
fine-tunings. One more variant, rate or seed costs only itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from kb.embeddings import MODALITIES, Modality, opposite
from pipeline.build import INPUTS, Progress, quiet
from pipeline.catalog import digest
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.direct import Direct
from pipeline.evaluation.downstream import Downstream, Pairs
from pipeline.evaluation.found import measure_retrieval
from pipeline.evaluation.results import Record, Results
from pipeline.evaluation.variants import VARIANTS, Sweep, Variant, derive
from pipeline.evaluation.world import Masked, World
from pipeline.job import Job
from pipeline.lock import hold
from pipeline.memory import Memory
from pipeline.parts import Part
from pipeline.workbench import STANDARDS

logger = logging.getLogger(__name__)

# What a run's knowledge base was made of, beside it.
KB_KEY = "kb.key"


@dataclass(frozen=True)
class Arm:
    """A variant at a missing rate, with the settings of a sweep's point on top.

    Attributes
    ----------
    variant : Variant
    masked : Masked
    point : str
        The sweep's point, "" where there is none.
    changes : mapping
        Dotted settings of that point.
    """

    variant: Variant
    masked: Masked
    point: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.variant.name} {self.point}".strip()

    @property
    def folder_name(self) -> str:
        point = f"-{digest(json.dumps(dict(self.changes)))[:8]}" if self.point else ""
        return f"{self.masked.path.stem}-{self.variant.name}{point}"


class Experiment:
    """Evaluates a config's settings on its own complete pairs.

    Parameters
    ----------
    config : Config
        Its section `evaluation` says what is compared.
    progress : Progress
        Called with the name of a step, what is done of it, and the total.
    world : World, optional
        In place of the one that the settings describe.
    """

    def __init__(
        self, config: Config, progress: Progress = quiet, world: World | None = None
    ) -> None:
        self.config = config
        self.settings = config.evaluation
        self.progress = progress
        self.world = world or World(config, config.folder / "evaluation", progress)
        self.folder = self.world.folder

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
            Each adds its points, of the last generating variant asked for.

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
        swept = [variant for variant in chosen if variant.generates]
        if sweeps and not swept:
            raise ConfigError("--sweep: needs a variant that generates, such as rag4dmc")
        arms = []
        for masked in self.world.masks(rates or self.settings.rates):
            arms += [Arm(variant, masked) for variant in chosen]
            for sweep in sweeps:
                arms += [
                    Arm(swept[-1], masked, point, changes) for point, changes in sweep.points()
                ]
        return arms

    @cached_property
    def memory(self) -> Memory:
        return Memory(self.folder / "candidates.sqlite")

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

    def config_of(self, arm: Arm) -> Config:
        """The config that completes an arm."""
        changes = {
            **self.world.settings_of(arm.masked),
            **arm.variant.changes,
            **arm.changes,
        }
        name = f"{self.config.name}-{arm.variant.name}"
        return derive(
            self.config, {"name": name, **changes}, self.folder / "runs" / arm.folder_name
        )

    def job_of(self, arm: Arm, complete: bool = True) -> Job:
        """The job of an arm, its knowledge base built and its rows completed."""
        job = Job(self.config_of(arm), self.progress)
        job.bench.memory = self.memory
        with job.lock():
            self._borrow(job)
            job.begin()
            job.build()
            (job.folder / KB_KEY).write_text(self._kb_key(job), encoding="utf-8")
            if complete:
                job.complete(rows_done=self._rows_done(arm))
        return job

    def _rows_done(self, arm: Arm) -> Any:
        done = 0

        def advance(outcomes: dict[str, int]) -> None:
            nonlocal done
            done += sum(outcomes.values())
            self.progress(f"{arm.label} at {arm.masked.rate:g}", done, len(self.world.train))

        return advance

    def _kb_key(self, job: Job) -> str:
        """What a knowledge base and its standards are made of."""
        config = job.config
        return digest(
            json.dumps(
                [
                    config.dataset.path,
                    [external.model_dump(mode="json") for external in config.external],
                    job.bench.identity(config.encoder_part()),
                    config.knowledge_base.identity(),
                    config.selection.identity(),
                    config.run.seed,
                ],
                sort_keys=True,
            )
        )

    def _borrow(self, job: Job) -> None:
        """Take the knowledge base of another arm that is made of the same things."""
        if (job.folder / "kb").exists():
            return
        key = self._kb_key(job)
        for held in sorted((self.folder / "runs").glob(f"*/{KB_KEY}")):
            folder = held.parent
            if held.read_text(encoding="utf-8") == key and (folder / "kb").is_dir():
                for name in (STANDARDS, INPUTS):
                    shutil.copy2(folder / name, job.folder / name)
                scratch = job.folder / "kb.borrowed"
                shutil.rmtree(scratch, ignore_errors=True)
                shutil.copytree(folder / "kb", scratch)
                scratch.rename(job.folder / "kb")
                return

    def _measure(self, arm: Arm, results: Results, seeds: int | None) -> None:
        """Complete an arm, and add everything that is measured of it."""
        hidden = arm.masked.hidden
        rate, label = arm.masked.rate, arm.label
        train = self.world.pairs_of(
            [i for i in self.world.train if arm.variant.name == "complete" or i not in hidden]
        )
        if arm.variant.generates:
            job = self.job_of(arm)
            table = job.completed().to_table()
            statuses = table["status"].to_pylist()
            for status in dict.fromkeys(statuses):
                results.add(Record(rate, label, "rows", status, statuses.count(status)))
            results.records += [
                Record(rate, label, **one) for one in self.direct.measure(job, table, hidden)
            ]
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
        records = []
        for one in found:
            common = {
                "group": "retrieval",
                "missing": opposite(one["observed"]),
                "mode": one["mode"],
            }
            used = {"used": one["mode"] == job.config.knowledge_base.retrieval.mode}
            quality = one["quality"]
            records.append(
                common | used | {"measure": "quality", "value": quality.mean, "half": quality.half}
            )
            records += [
                common | used | {"measure": k, "value": one[k]} for k in one if k.startswith("R@")
            ]
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
