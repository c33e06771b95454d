"""The runs of an evaluation: a variant at a missing rate as a config, completed through the pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kb.recipe import METHOD
from pipeline.config.config import Config
from pipeline.config.variants import Variant
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.changes import derive
from pipeline.evaluation.protocol.world import Masked, World
from pipeline.job import Job
from pipeline.knowledge.build import INPUTS
from pipeline.knowledge.standing import STANDARDS
from pipeline.models.candidates import CandidateStore
from pipeline.storage.digests import digest

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


class Runs:
    """Completes arms; what two of them have in common is made once.

    Parameters
    ----------
    config : Config
    world : World
    progress : Progress
    """

    def __init__(self, config: Config, world: World, progress: Progress = quiet) -> None:
        self.config = config
        self.world = world
        self.folder = world.folder
        self.progress = progress

    @cached_property
    def candidates(self) -> CandidateStore:
        """Candidates of all arms."""
        return CandidateStore(self.folder / "candidates.sqlite")

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
        job.models.store = self.candidates
        with job.lock():
            self._borrow(job)
            job.begin()
            if not job.build():
                job.mend()
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
                    METHOD,
                    config.dataset.path,
                    [external.model_dump(mode="json") for external in config.external],
                    job.models.identity(config.encoder_component()),
                    config.knowledge_base.identity(),
                    config.selection.image.identity(),
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
