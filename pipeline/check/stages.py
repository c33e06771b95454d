"""A run's shards in the order that the check asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kb.embeddings import Modality
from pipeline.check.check import Check
from pipeline.dataset.catalog import Catalog
from pipeline.ledger.plan import Plan, ShardPlan

# As `make_plan` has them: each generator is loaded once.
ORDER: tuple[Modality, ...] = ("text", "image")


def in_stages(planned: Plan, check: Check, catalog: Catalog) -> Iterator[Sequence[ShardPlan]]:
    """The shards of a plan and of its check.

    A stage needs what those before it leave, and is not asked for until they are done: pairs are checked
    before the rows of their half, and beside those of the half before, so that the workers of an engine
    seldom wait. What was found of a half is summed up as its rows come to their turn.
    """
    stage = [shard for shard in planned.shards if shard.missing is None]
    for half in ORDER:
        if checked := check.planned.get(half):
            yield [*stage, *checked]
            stage = []
        planned.teach(half, check.settle(half, catalog))
        stage += [shard for shard in planned.shards if shard.missing == half]
    if stage:
        yield stage
