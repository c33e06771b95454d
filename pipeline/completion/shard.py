"""A shard done: its portions written as one part, and its manifest after that.

Its part is written beside and renamed into place before the shard's manifest makes it count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from generators.service_errors import ServiceRefused
from pipeline.completion.portion import Parts, Portion
from pipeline.completion.stream import Stream
from pipeline.dataset.schema import row_group_rows
from pipeline.ledger.compaction import layout_of
from pipeline.ledger.ledger import (
    Entry,
    Ledger,
    Manifest,
    entry_table,
    part_name,
    shard_name,
    writing_part,
)
from pipeline.ledger.plan import ShardPlan
from pipeline.ledger.usage import UsageLog

RowsDone = Callable[[dict[str, int]], None]


class Shards:
    """Does shards one after another; where they are of one kind their rows are one stream.

    Parameters
    ----------
    parts : Parts

    Attributes
    ----------
    usage : UsageLog
        What this process has used of generators' servers.
    """

    def __init__(self, parts: Parts) -> None:
        self.usage = UsageLog(Ledger(parts.config.folder).folder)
        self._parts = parts
        self._stream: Stream | None = None

    def complete(
        self,
        plan: ShardPlan,
        following: Sequence[ShardPlan] = (),
        rows_done: RowsDone | None = None,
        answered: Callable[[int], None] | None = None,
    ) -> Manifest:
        """Do a shard: write its part, then its manifest.

        What its rows need beside the generator another thread does, a block at a time
        (`pipeline.completion.stream`). When this returns, rows of the next shard may be under way.

        Parameters
        ----------
        plan
        following
            Shards that this process does next.
        rows_done
            Called after each block with the outcomes of its rows.
        answered
            Called with how many rows the generator has answered, a block before those are done.

        Raises
        ------
        ServiceRefused
            The generator's server takes no more requests. The blocks before are a shard of their own.
        KeyboardInterrupt
            The same holds for whoever is interrupted.
        """
        try:
            return self._complete(self._stream_at(plan, following), plan, rows_done, answered)
        except BaseException:
            self.close()
            raise
        finally:
            self._keep_usage(plan)

    def _keep_usage(self, plan: ShardPlan) -> None:
        """Keep what the generator's server has counted, of the next shard's rows too."""
        if (new := self._parts.models.newly_used()) is not None:
            self.usage.add(plan.run_id, *new)

    def close(self) -> None:
        """Let go what is under way."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _stream_at(self, plan: ShardPlan, following: Sequence[ShardPlan]) -> Stream:
        """The stream that goes on with this shard."""
        if self._stream is None or self._stream.shard != plan.number:
            self.close()
            self._stream = Stream(self._portions(plan, following))
        return self._stream

    def _portions(self, plan: ShardPlan, following: Sequence[ShardPlan]) -> Iterator[Portion]:
        """The shard's rows in blocks, and those of its kind that follow at once."""
        size = self._parts.config.run.block_size
        for shard in (plan, *following):
            # Another kind has another generator, for which this one has to be freed.
            if shard.missing != plan.missing:
                return
            for start in range(0, len(shard.rows), size):
                yield self._parts.portion(shard, slice(start, start + size))

    def _complete(
        self,
        stream: Stream,
        plan: ShardPlan,
        rows_done: RowsDone | None,
        answered: Callable[[int], None] | None,
    ) -> Manifest:
        schema = self._parts.schema
        ledger = Ledger(self._parts.folder)
        path = ledger.parts / part_name(plan.number)
        stopped: BaseException | None = None
        with writing_part(path, schema) as writer:
            rows = _Rows(writer)
            try:
                for portion in stream.run(plan.number, rows.write, answered or _nobody):
                    self._keep_usage(plan)
                    if rows_done:
                        rows_done(dict(Counter(entry.status for entry in portion.ended())))
            except (ServiceRefused, KeyboardInterrupt) as error:
                self.close()
                if not rows.done:
                    raise
                stopped = error
            rows.flush()
        manifest = Manifest(
            shard=shard_name(plan.number),
            part=path.name,
            size=path.stat().st_size,
            run_id=plan.run_id,
            settings=plan.settings,
            layout=layout_of(schema),
            rows=entry_table(rows.done),
        )
        ledger.commit(manifest)
        if stopped is not None:
            raise stopped
        return manifest


class _Rows:
    """Writes portions in row groups of a good size, and knows their rows."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []
        self.done: list[Entry] = []

    def write(self, portion: Portion) -> None:
        assert portion.table is not None
        self._waiting.append(portion.table)
        self.done += portion.ended()
        together = pa.concat_tables(self._waiting)
        if len(together) >= row_group_rows(together):
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            together = pa.concat_tables(self._waiting)
            self._writer.write_table(together, row_group_size=row_group_rows(together))
            self._waiting.clear()


def _nobody(rows: int) -> None:
    """Nobody wants to know."""
