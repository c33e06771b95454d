"""Tidying the completed dataset: rows that no longer count leave, other columns are taken over.

A part is never changed: a new one is written beside it, and its manifest replaces the old one's.
What was generated for a row that leaves is kept in `history/`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.catalog import fetch
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.schema import ROW_GROUP_ROWS, completed_schema
from pipeline.ledger.ledger import Ledger, Manifest, part_name, shard_name, writing_part
from pipeline.storage.digests import NO_DIGEST, digest


def layout_of(schema: pa.Schema) -> str:
    """A digest of a part's schema."""
    return digest(schema.serialize().to_pybytes())


def compact(ledger: Ledger, rows: pa.Table, dataset: Dataset) -> int:
    """Write again the parts that hold rows which no longer count, or other columns than the input.

    A row counts while the input has its id with the same observed content, and no newer shard
    holds it. The ledger must be loaded, and the caller must hold the run's lock.

    Parameters
    ----------
    ledger
    rows
        The catalog of the input.
    dataset
        The input.

    Returns
    -------
    int
        Parts that were written again or dropped.
    """
    held = ledger.table()
    schema = completed_schema(dataset.text_is_list, dataset.extra_schema)
    layout = layout_of(schema)
    ids = held["id"].combine_chunks()
    newest = np.asarray(pc.index_in(ids, value_set=ids)) == np.arange(len(held))
    place = pc.index_in(ids, value_set=rows["id"].combine_chunks())
    content = rows["content"].combine_chunks().take(place)
    alive = newest & np.asarray(pc.equal(content, held["content"]).fill_null(False))
    extra = pc.fill_null(rows["extra"].combine_chunks().take(place), NO_DIGEST)
    stale = alive & np.asarray(pc.not_equal(extra, pc.fill_null(held["extra"], NO_DIGEST)))
    start, rewritten = 0, 0
    for manifest in ledger.newest_first():
        part = slice(start, start + len(manifest.rows))
        start = part.stop
        renewed = bool(stale[part].any()) or manifest.layout != layout
        if alive[part].all() and not renewed:
            continue
        source = rows.take(place[part].filter(pa.array(alive[part])))
        _rewrite(ledger, manifest, alive[part], source if renewed else None, dataset)
        rewritten += 1
    ledger.sweep()
    return rewritten


def _rewrite(
    ledger: Ledger,
    manifest: Manifest,
    alive: np.ndarray,
    source: pa.Table | None,
    dataset: Dataset,
) -> None:
    """Put a part's living rows into a new part, with columns from the input where `source` is."""
    old = pq.ParquetFile(ledger.parts / manifest.part)
    dead = ~alive & np.asarray(pc.equal(manifest.rows["status"], "completed"))
    if dead.any():
        with writing_part(ledger.history_of(manifest), old.schema_arrow) as writer:
            for table in _groups(old, dead):
                writer.write_table(table)
    if not alive.any():
        ledger.drop(manifest.shard)
        return
    number = ledger.next_number()
    path = ledger.parts / part_name(number)
    schema = old.schema_arrow
    if source is not None:
        schema = completed_schema(dataset.text_is_list, dataset.extra_schema)
    done = 0
    with writing_part(path, schema) as writer:
        for table in _groups(old, alive):
            if source is not None:
                part = source.slice(done, len(table))
                table = _renewed(table, part, dataset, schema)
                done += len(part)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    entries = manifest.rows.filter(pa.array(alive))
    if source is not None:
        place = entries.schema.get_field_index("extra")
        entries = entries.set_column(place, "extra", source["extra"])
    ledger.commit(
        Manifest(
            shard=shard_name(number),
            part=path.name,
            size=path.stat().st_size,
            run_id=manifest.run_id,
            settings=manifest.settings,
            layout=manifest.layout if source is None else layout_of(schema),
            rows=entries,
            replaces=manifest.shard,
        )
    )


def _groups(file: pq.ParquetFile, mask: np.ndarray) -> Iterator[pa.Table]:
    """The rows of a part where the mask is, a row group at a time."""
    start = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        kept = table.filter(pa.array(mask[start : start + len(table)]))
        start += len(table)
        if len(kept):
            yield kept


def _renewed(table: pa.Table, source: pa.Table, dataset: Dataset, schema: pa.Schema) -> pa.Table:
    """The rows with the input's pass-through columns, in the present schema."""
    columns = {name: table[name] for name in schema.names if name in table.schema.names}
    places = zip(source["file"].to_pylist(), source["position"].to_pylist(), strict=True)
    if dataset.extra_schema.names:
        extra = fetch(dataset, places)["extra"]
        columns |= dict(zip(dataset.extra_schema.names, extra.flatten(), strict=True))
    listed = pa.types.is_list(schema.field("text").type)
    if listed != pa.types.is_list(table.schema.field("text").type):
        texts = columns["text"].to_pylist()
        columns["text"] = (
            [None if text is None else [text] for text in texts]
            if listed
            else [text[0] if text else None for text in texts]
        )
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
