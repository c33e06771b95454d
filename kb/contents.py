"""The rows of a knowledge base on disk: which pairs went in, when, and as what."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kb.embeddings import (
    MODALITIES,
    EmbeddingWriter,
    Modality,
    chunks,
    open_embeddings,
    release,
)
from kb.filtering import VERDICTS, FilterVerdicts
from kb.index import EmbeddingIndex, IndexSettings
from kb.mapping import NoCompletePairs
from kb.pairs import Pairs, PairsWriter, read_pairs, string_column
from kb.purification import Alignments
from kb.storage import version_of

Origin = Literal["internal", "external"]
ORIGINS: tuple[Origin, ...] = ("internal", "external")
# What a knowledge base adds to the columns of its pairs.
OWN_COLUMNS = ("origin", "added", *(f"{modality}_digest" for modality in MODALITIES))
# What is measured of retrieval for both modalities at once, and decides what is found.
RETRIEVAL = ("mode", "k", "alpha", "consensus")
# The same for each observed modality.
PENALTY = "external_penalty"


@dataclass(frozen=True)
class Side:
    """Pairs that go into a knowledge base in one step.

    Attributes
    ----------
    pairs : Pairs
    origin : "internal", "external", or None for rows of the knowledge base that is extended
    kept : bool [n] or None
        Which rows go in; None for all.
    alignments : per modality, or None
    """

    pairs: Pairs
    origin: Origin | None
    kept: np.ndarray | None = None
    alignments: Alignments | None = None


def write_contents(
    folder: Path, sides: Sequence[Side], dimensions: Mapping[Modality, int], addition: int
) -> dict[Origin, int]:
    """Writes pairs.arrow and both embedding files; returns the new rows of each origin.

    Raises
    ------
    NoCompletePairs
        There would be no row.
    """
    if not any(len(s.pairs) if s.kept is None else s.kept.any() for s in sides):
        # There always are internal pairs, so it is the sources that leave them out.
        raise NoCompletePairs(
            "knowledge_base.sources: the knowledge base would hold no pair, for no external one was "
            "kept and sources is ['external']; add 'internal' or check the external set"
        )
    (folder / "embeddings").mkdir()
    counts = dict.fromkeys(ORIGINS, 0)
    schemas = [_marked(side, addition).schema for side in sides]
    with PairsWriter(folder / "pairs.arrow", schemas) as writer:
        for side in sides:
            table = _marked(side, addition)
            if side.kept is not None:
                table = table.filter(pa.array(side.kept))
            writer.write(table)
            if side.origin is not None:
                counts[side.origin] += len(table)
    for modality in MODALITIES:
        path = folder / "embeddings" / f"{modality}.npy"
        with EmbeddingWriter(path, dimensions[modality]) as writer_:
            for side in sides:
                _write_embeddings(writer_, side, modality)
    return counts


def _marked(side: Side, addition: int) -> pa.Table:
    """The side's table with `OWN_COLUMNS`: origin, number of the addition, digests of the halves."""
    table = side.pairs.table
    if side.origin is None:
        return table
    table = table.drop_columns([c for c in OWN_COLUMNS if c in table.column_names])
    table = table.append_column(
        "origin", pa.repeat(pa.scalar(side.origin, pa.string()), len(table))
    )
    table = table.append_column("added", pa.array(np.full(len(table), addition, np.int32)))
    for modality, digests in side.pairs.digests.items():
        table = table.append_column(f"{modality}_digest", pa.array(digests))
    return table


def _write_embeddings(writer: EmbeddingWriter, side: Side, modality: Modality) -> None:
    embeddings = side.pairs.embeddings[modality]
    if side.origin is None:
        for start in range(0, len(embeddings), 16_384):
            writer.copy(embeddings[start : start + 16_384])
            release(embeddings)
        return
    start = 0
    for block in chunks(embeddings):
        size = len(block)
        chosen = block if side.kept is None else block[side.kept[start : start + size]]
        start += size
        if side.alignments is not None:
            chosen = side.alignments[modality].transform(chosen)
        writer.append(chosen)


def known_table(sides: Sequence[tuple[Pairs, Origin]], addition: int) -> pa.Table:
    """Every pair that was handed in, kept or not: id, origin, digests of its halves, addition."""
    pieces = []
    for pairs, origin in sides:
        pieces.append(
            pa.table(
                {
                    "id": string_column([pairs], "id"),
                    "origin": pa.repeat(pa.scalar(origin, pa.string()), len(pairs)),
                    **{f"{m}_digest": pa.array(pairs.digests[m]) for m in MODALITIES},
                    "added": pa.array(np.full(len(pairs), addition, np.int32)),
                }
            )
        )
    return pa.concat_tables(pieces)


def verdict_table(verdicts: FilterVerdicts, external: Sequence[Pairs], addition: int) -> pa.Table:
    """One row for every external pair: id, source, verdict, cluster, both figures."""
    return pa.table(
        {
            "id": string_column(external, "id"),
            "source": string_column(external, "source"),
            "verdict": pa.array(verdicts.verdict, pa.string()),
            "cluster": pa.array(verdicts.cluster, pa.int64()),
            "centroid_similarity": pa.array(verdicts.centroid_similarity, pa.float32()),
            "instance_similarity": pa.array(verdicts.instance_similarity, pa.float32()),
            "added": pa.array(np.full(len(verdicts.verdict), addition, np.int32)),
        }
    )


def write_table(path: Path, tables: Sequence[pa.Table]) -> None:
    """Several tables of one schema as a Parquet file."""
    pq.write_table(pa.concat_tables(tables), path)


def open_contents(folder: Path) -> dict[Modality, np.ndarray]:
    """Both embedding files as memory maps."""
    return {m: open_embeddings(folder / "embeddings" / f"{m}.npy") for m in MODALITIES}


def build_indexes(
    folder: Path,
    embeddings: Mapping[Modality, np.ndarray],
    settings: IndexSettings,
    random_state: int,
    device: str,
    queries: Mapping[Modality, np.ndarray] | None,
    as_before: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[Modality, EmbeddingIndex]:
    """One index a modality, built, tuned by `queries` such as it will get, saved under `folder`/indexes.

    `as_before`, the manifest's entries, says how those were tuned that these replace. Each is read
    back when both are there: one that grew in memory holds up to twice its size.
    """
    places = {m: folder / "indexes" / m for m in MODALITIES}
    shutil.rmtree(folder / "indexes", ignore_errors=True)
    (folder / "indexes").mkdir()
    for modality, place in places.items():
        before = {} if as_before is None else as_before[modality]
        tuned = {name: before[name] for name in ("lists", "probes") if name in before}
        index = EmbeddingIndex.build(
            embeddings[modality],
            settings.model_copy(update=tuned),
            random_state,
            device,
            None if queries is None else queries[modality],
        )
        if tuned and "recall_at_10" in before:
            index.evidence["recall_at_10"] = before["recall_at_10"]
        index.save(place)
    return {m: EmbeddingIndex.load(place, device) for m, place in places.items()}


def update_indexes(
    old: Path,
    folder: Path,
    embeddings: Mapping[Modality, np.ndarray],
    gone: np.ndarray,
    device: str,
) -> dict[Modality, dict[str, Any]]:
    """The indexes of `old` without rows that are gone and with those that are new.

    Saved under `folder`/indexes, one after the other; returns how each is described.
    """
    (folder / "indexes").mkdir()
    descriptions = {}
    for modality in MODALITIES:
        index = EmbeddingIndex.load(old / "indexes" / modality, device)
        index.remove(gone)
        index.add(embeddings[modality][len(index) :])
        index.save(folder / "indexes" / modality)
        descriptions[modality] = index.describe()
    return descriptions


def verdict_counts(folder: Path, addition: int | None = None) -> dict[str, int]:
    """Judged external rows by verdict: all of them, or those of one addition."""
    path = folder / "verdicts.parquet"
    if not path.exists():
        return dict.fromkeys(VERDICTS, 0)
    table = pq.read_table(path, columns=["verdict", "added"])
    if addition is not None:
        table = table.filter(pc.equal(table["added"], addition))
    return {v: pc.sum(pc.equal(table["verdict"], v)).as_py() or 0 for v in VERDICTS}


def version(folder: Path, files: dict[str, dict[str, Any]], retrieval: Mapping[str, Any]) -> str:
    """The version of what a folder holds (`kb.storage.version_of`)."""
    held = read_pairs(folder / "pairs.arrow").select(["id"])
    ids = (batch["id"].to_pylist() for batch in held.to_batches(max_chunksize=65_536))
    return version_of(files, ids, {name: retrieval[name] for name in (*RETRIEVAL, PENALTY)})


def count(folder: Path) -> dict[str, Any]:
    """Pairs handed in and pairs held, by origin and by source."""
    known = pq.read_table(folder / "known.parquet", columns=["origin"])["origin"]
    held = read_pairs(folder / "pairs.arrow")
    return {
        **{f"{o}_in": pc.sum(pc.equal(known, o)).as_py() or 0 for o in ORIGINS},
        **{o: pc.sum(pc.equal(held["origin"], o)).as_py() or 0 for o in ORIGINS},
        "pairs": len(held),
        "by_source": count_by_source(held),
    }


def id_array(pairs: pa.Table) -> pa.Array:
    """The ids as one array, which may exceed 2 GiB."""
    column = pairs["id"].cast(pa.large_string())
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def external_rows(pairs: pa.Table) -> np.ndarray:
    """Which of a knowledge base's pairs are external, bool [n]."""
    external: np.ndarray = pc.equal(pairs["origin"], "external").to_numpy()
    return external


def digest_arrays(pairs: pa.Table) -> dict[Modality, np.ndarray]:
    """The digests of both halves of a knowledge base's pairs, uint64 [n] each."""
    return {m: pairs[f"{m}_digest"].to_numpy() for m in MODALITIES}


def count_by_source(pairs: pa.Table) -> dict[str, int]:
    """Rows of each source."""
    counts: Any = pc.value_counts(pairs["source"])
    return {str(c["values"].as_py()): c["counts"].as_py() for c in counts}
