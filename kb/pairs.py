"""Complete pairs with their embeddings: what a knowledge base is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import MODALITIES, InvalidEmbedding, Modality, Rows, Subset, chunks, release
from kb.groups import content_groups
from kb.mapping import NoCompletePairs


@dataclass(frozen=True)
class Pairs:
    """Complete pairs and their embeddings.

    Attributes
    ----------
    table : pyarrow.Table
        Columns `id` (string, unique over all sides), `source`, and any others, which are kept.
    embeddings : dict
        Per modality rows in the table's order, [n, d]; memory maps of float16 allowed.
    """

    table: pa.Table
    embeddings: Mapping[Modality, Rows]

    def __post_init__(self) -> None:
        for name in ("id", "source"):
            if name not in self.table.column_names:
                raise ValueError(f"pairs need a column {name!r}; got {self.table.column_names}")
        for modality in MODALITIES:
            if len(self.embeddings[modality]) != len(self.table):
                raise ValueError(
                    f"{modality} embeddings must have one row a pair; "
                    f"got {len(self.embeddings[modality])} for {len(self.table)}"
                )

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def digests(self) -> dict[Modality, np.ndarray]:
        """Per modality a 64-bit digest of each half, by its embedding; uint64 [n]."""
        return {m: half_digests(self.embeddings[m], m) for m in MODALITIES}

    def groups(self) -> np.ndarray:
        """Rows that share a half by equal numbers, int64 [n]: see `kb.groups.content_groups`."""
        return content_groups(self.digests["image"], self.digests["text"])

    def select(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs; embeddings are not copied."""
        embeddings = {m: Subset(self.embeddings[m], rows) for m in MODALITIES}
        return Pairs(self.table.take(pa.array(rows)), embeddings)


def check(internal: Pairs, external: Sequence[Pairs]) -> None:
    """Raises where the pairs cannot make a knowledge base.

    Raises
    ------
    NoCompletePairs
        There is no internal pair.
    ValueError
        An external set has another dimension, or an id comes twice; the message names it.
    InvalidEmbedding
        A pair's embedding is non-finite or all zero; the message names source and id. All are read
        once, in chunks.
    """
    if len(internal) == 0:
        raise NoCompletePairs(
            "no complete pair to learn from: the dataset needs rows with both an image and a text "
            "(32 or more to be of use)"
        )
    for pairs in external:
        for modality in MODALITIES:
            widths = (internal.embeddings[modality].shape[1], pairs.embeddings[modality].shape[1])
            if widths[0] != widths[1]:
                name = pairs.table["source"][0].as_py()
                raise ValueError(
                    f"external set {name!r}: {modality} embeddings must have dimension "
                    f"{widths[0]} as the internal ones have; got {widths[1]}"
                )
    ids = string_column([internal, *external], "id")
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        raise ValueError(f"id {twice[0]['values'].as_py()!r} stands for more than one pair")
    for pairs in (internal, *external):
        for modality in MODALITIES:
            _check_embeddings(pairs, modality)


def _check_embeddings(pairs: Pairs, modality: Modality) -> None:
    try:
        for _ in chunks(pairs.embeddings[modality]):
            pass
    except InvalidEmbedding as error:
        if error.row is None:
            raise
        source, name = (pairs.table[column][error.row].as_py() for column in ("source", "id"))
        raise InvalidEmbedding(f"{source}, pair {name!r}: {modality} {error}", error.row) from None


def string_column(sides: Sequence[Pairs], name: str) -> pa.ChunkedArray:
    """One column of several tables, as strings whose sum may exceed 2 GiB."""
    kind = pa.large_string()
    pieces = [chunk.cast(kind) for pairs in sides for chunk in pairs.table[name].chunks]
    return pa.chunked_array(pieces, kind)


def half_digests(embeddings: Rows, modality: Modality, rows: int = 16_384) -> np.ndarray:
    """64-bit digests of embeddings, by which a changed or a shared half is told; uint64 [n].

    Random odd multipliers over the half-precision bit patterns: quick, and by no means
    cryptographic.
    """
    generator = np.random.default_rng(MODALITIES.index(modality))
    factors = generator.integers(0, 2**63, embeddings.shape[1], dtype=np.uint64) * 2 + 1
    digests = np.empty(len(embeddings), dtype=np.uint64)
    for start in range(0, len(embeddings), rows):
        block = np.asarray(embeddings[start : start + rows]).astype(np.float16)
        bits = np.ascontiguousarray(block).view(np.uint16).astype(np.uint64)
        digests[start : start + len(block)] = (bits * factors).sum(axis=1, dtype=np.uint64)
        release(embeddings)
    return digests


class PairsWriter:
    """Writes tables of differing columns into one Arrow file under the union of their schemas."""

    def __init__(self, path: Path, schemas: list[pa.Schema]) -> None:
        plain = [schema.remove_metadata() for schema in schemas]
        self.schema = pa.unify_schemas(plain, promote_options="permissive")
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self.schema)

    def write(self, table: pa.Table) -> None:
        """Appends rows; columns that the table lacks are null."""
        columns = [
            table.column(name).cast(kind)
            if name in table.column_names
            else pa.nulls(len(table), kind)
            for name, kind in zip(self.schema.names, self.schema.types, strict=True)
        ]
        table = pa.Table.from_arrays(columns, schema=self.schema)
        # The same pairs give the same file, in however many pieces they came.
        self._writer.write_table(table.combine_chunks())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._sink.close()


def read_pairs(path: Path) -> pa.Table:
    """The pairs, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
