"""The front door: a run's parts put together, and its steps as plain functions.

Report, advice and evaluation lie above and take a `Job`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyarrow.dataset as ds

from kb.storage import DamagedKnowledgeBase
from pipeline.check.check import Check
from pipeline.check.stages import in_stages
from pipeline.completion.portion import Parts
from pipeline.completion.sent import SentShards
from pipeline.completion.shard import RowsDone
from pipeline.config.config import Config
from pipeline.config.dependencies import row_dependencies
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.overlooked import warn_of_run
from pipeline.dataset.sources import Progress, Sources, quiet
from pipeline.knowledge.build import INPUTS, build
from pipeline.knowledge.embedding import PairEmbeddings
from pipeline.knowledge.standing import StandingKnowledge
from pipeline.ledger.compaction import compact
from pipeline.ledger.comparison import compare
from pipeline.ledger.ledger import Ledger, Manifest
from pipeline.ledger.plan import Plan, ShardPlan, make_plan
from pipeline.ledger.review import Review, Verdict
from pipeline.ledger.summary import read_summary, summarise
from pipeline.models.loaded import LoadedModels
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import clear_scratch, write_changed
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.warned import Warned

logger = logging.getLogger(__name__)

CANDIDATES = "candidates.sqlite"


class Job:
    """A run of one config.

    Parameters
    ----------
    config : Config

    Examples
    --------
    >>> job = Job(load_config("dmc.yaml"))      # doctest: +SKIP
    >>> with job.lock():                         # doctest: +SKIP
    ...     job.build()
    ...     job.complete()
    >>> job.completed().to_table()               # doctest: +SKIP
    """

    def __init__(self, config: Config, progress: Progress = quiet) -> None:
        self.config = config
        self.folder = config.folder
        self.home = RunFolder(self.folder, config.output_url)
        self.sources = Sources(
            config.dataset, config.external, config.base, self.folder / "catalog"
        )
        self.models = LoadedModels(
            config.encoder_component(),
            {missing: config.generator_component(missing) for missing in config.made},
            config.base,
            config.run.offline,
            self.folder / CANDIDATES if config.run.remember else None,
        )
        self.embeddings = PairEmbeddings(config.embeddings_folder, self.sources, self.models)
        self.knowledge = StandingKnowledge(
            self.folder,
            self.sources,
            config.selection,
            config.run.seed,
            config.knowledge_base.device,
        )
        self._parts = Parts(config, self.sources, self.models, self.knowledge)
        self._shards = SentShards(self._parts, self.home)
        self.check = Check(self._parts, self.knowledge, self.home)
        self.progress = progress
        self.warned = Warned()
        if progress is not quiet:
            self.models.loading.progress = progress
        self.times: list[dict[str, Any]] = []
        self.planned, self._overlooked = Plan(), list[str]()
        self._ledger: Ledger | None = None
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's folder, and its URL; see `RunFolder.hold`."""
        with self.home.hold(self.run_id), self.warned:
            yield

    @property
    def catalog(self) -> Catalog:
        """The rows of the dataset, scanned once a job."""
        return self.sources.catalog(progress=self.progress)

    @property
    def ledger(self) -> Ledger:
        """What is done, as it stood when it was first asked for or a run last ended."""
        self._ledger = self._ledger or Ledger(self.folder).load()
        return self._ledger

    @cached_property
    def review(self) -> Review:
        """A person's verdicts on what was generated."""
        return Review(self.folder).load()

    def try_generators(self) -> None:
        """Load every generator that rows wait for, before a first knowledge base is built.

        That may take hours, and a model that can't be loaded is better known before.

        Raises
        ------
        ConfigError
            One can't be loaded.
        """
        if self.knowledge.stands:
            return
        counts = self.catalog.counts()
        for missing in self.config.made:
            if counts[missing]:
                self.models.try_generator(missing)

    def build(self) -> bool:
        """Build the knowledge base where it is stale; whether it was. Needs the lock."""
        built = build(
            self.config,
            self.sources,
            self.models,
            self.embeddings,
            self.knowledge,
            self.progress,
        )
        if built:
            self.home.push()
        return built

    def mend(self) -> bool:
        """Read all of the knowledge base, and build it again if it is damaged; whether it was.

        Needs the lock.
        """
        try:
            self.knowledge.base  # noqa: B018 - opens it
        except DamagedKnowledgeBase as error:
            logger.warning("building the knowledge base again: %s", error)
            (self.folder / INPUTS).unlink(missing_ok=True)
            return self.build()
        return False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step, for the summary."""
        started = time.monotonic()
        yield
        self.times.append({"step": name, "seconds": round(time.monotonic() - started, 2)})

    def plan(self, limit: int | None = None, retry_failed: bool = False) -> Plan:
        """Which rows are pending and why, in shards of one kind each.

        Parameters
        ----------
        limit
            Most rows that are completed; rows with both halves always pass.
        retry_failed
            Try rows again that ended in an error.

        Raises
        ------
        RunFailed
            More rows vanished from the input than `run.max_deleted_share` allows.
        """
        rows, run = self.catalog.table, self.config.run
        settings = row_dependencies(self.config, self.models.identity, self.knowledge.version)
        compared = compare(rows, self.ledger, settings, self.review.verdicts, retry_failed)
        compared.check_deleted(run.max_deleted_share)
        self.planned = make_plan(
            rows,
            self.ledger,
            compared,
            settings,
            run.shard_size,
            self.run_id,
            limit,
            self.review.verdicts,
        )
        standing = self.planned.standing(self.catalog.counts())
        self.check.plan(self.catalog, standing, self.run_id, retry_failed)
        return self.planned

    def begin(self) -> None:
        """Lay the resolved settings beside the output and clear debris. Needs the lock."""
        for name in ("completed", "ledger"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_changed(self.folder / "config.yaml", self.config.resolved())
        clear_scratch(self.folder)
        self.ledger.sweep()
        self.check.begin()

    def stages(self) -> Iterator[Sequence[ShardPlan]]:
        """What is to be done, once the knowledge base is known to be whole: see `in_stages`."""
        if any(shard.missing for shard in self.planned.shards) or any(self.check.planned.values()):
            self.mend()
            self._overlooked = warn_of_run(self.catalog, self.planned.pending, self.config.made)
        yield from in_stages(self.planned, self.check, self.catalog)

    def complete_shard(
        self,
        plan: ShardPlan,
        rows_done: RowsDone | None = None,
        answered: Callable[[int], None] | None = None,
    ) -> Manifest:
        """Do one shard, unless this run has; see `pipeline.completion.sent.SentShards.complete`."""
        if plan.checks:
            return self.check.complete(plan, rows_done, answered)
        after = [shard for shard in self.planned.shards if shard.number > plan.number]
        return self._shards.complete(plan, after, rows_done, answered)

    def finish(self) -> dict[str, Any]:
        """Drop rows that no longer count from the completed dataset, and sum up.

        A row leaves when its id is gone from the input, when a newer shard holds it, or when its
        observed content is another now. What was generated for it moves to `history/`.

        Returns
        -------
        dict
            See `pipeline.ledger.summary.summarise`.
        """
        self._let_go()
        self.models.close_generator()
        if self.planned.shards:
            self._ledger = None  # shards may have been done in other processes
        rewritten = compact(self.ledger, self.catalog.table, self.sources.dataset)
        return summarise(
            self.ledger,
            self.planned,
            self.run_id,
            last=read_summary(self.folder).get("run_id"),
            rewritten=rewritten,
            times=self.times,
            prices=self.config.prices,
            warnings=[*self.knowledge.warnings(), *self._overlooked, *self.warned.told()],
            check=self.check.figures(),
        )

    def complete(
        self,
        limit: int | None = None,
        retry_failed: bool = False,
        rows_done: RowsDone | None = None,
    ) -> Mapping[str, Any]:
        """Complete what is pending in this process, without Prefect, and sum up."""
        self.begin()
        self.plan(limit, retry_failed)
        for stage in self.stages():
            for shard in stage:
                self.complete_shard(shard, rows_done)
        return self.finish()

    def _let_go(self) -> None:
        self._shards.close()
        self.check.close()

    def close(self) -> None:
        """Free what was loaded; what is used after all is loaded again."""
        self._let_go()
        self.models.close()
        self.knowledge.forget()

    def verdicts(self) -> dict[str, Verdict]:
        """A person's verdicts by id, of rows whose observed half is as it was."""
        return self.review.standing(self.ledger.entries(list(self.review.verdicts)))

    def check_completed(self) -> None:
        """Raises `ConfigError` where nothing was completed yet."""
        if not self.ledger.files():
            raise ConfigError(
                f"{self.folder} holds no completed dataset; first: rag4dmc run CONFIG"
            )

    def completed(self) -> ds.Dataset:
        """The completed dataset; `.to_table()` reads it whole."""
        files = [str(path) for path in self.ledger.files()]
        return ds.dataset(files, schema=self._parts.schema, format="parquet")
