"""Shards that are done once a run, and sent to the URL that the run's folder mirrors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from generators.service_errors import ServiceRefused
from pipeline.completion.portion import Parts
from pipeline.completion.shard import RowsDone, Shards
from pipeline.ledger.ledger import Ledger, Manifest, shard_name
from pipeline.ledger.plan import ShardPlan
from pipeline.storage.run_folder import RunFolder


class SentShards(Shards):
    """`Shards` whose parts and manifests go where others of the run find them.

    Parameters
    ----------
    parts : Parts
    home : RunFolder
    """

    def __init__(self, parts: Parts, home: RunFolder) -> None:
        super().__init__(parts)
        self._home = home

    def complete(
        self,
        plan: ShardPlan,
        following: Sequence[ShardPlan] = (),
        rows_done: RowsDone | None = None,
        answered: Callable[[int], None] | None = None,
    ) -> Manifest:
        """Do a shard, unless this run has; see `Shards.complete`."""
        manifest = None
        try:
            manifest = self._done(plan) or super().complete(plan, following, rows_done, answered)
        except ServiceRefused:
            manifest = self._done(plan)
            raise
        finally:
            if manifest is not None:
                self._send(manifest)
        return manifest

    def _done(self, plan: ShardPlan) -> Manifest | None:
        """What this run has done of a shard."""
        manifest = Ledger(self._parts.folder).find(shard_name(plan.number))
        return manifest if manifest is not None and manifest.run_id == plan.run_id else None

    def _send(self, manifest: Manifest) -> None:
        inner = self._parts.folder.relative_to(self._parts.config.folder).as_posix()
        self._home.send_shard(
            manifest.part,
            f"{manifest.shard}.json",
            manifest.run_id,
            self.usage.file(manifest.run_id),
            "" if inner == "." else f"{inner}/",
        )
