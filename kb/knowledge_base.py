"""The purified dual knowledge base: built from complete and external pairs, kept in a folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from kb.alignment import AlignmentSettings
from kb.embeddings import (
    MODALITIES,
    EmbeddingWriter,
    Modality,
    Rows,
    Stacked,
    chunks,
    open_embeddings,
    take,
)
from kb.filtering import FilterSettings
from kb.index import EmbeddingIndex, IndexSettings
from kb.mapping import CrossModalMapping, MappingSettings, NoCompletePairs
from kb.progress import Stopwatch
from kb.purification import Alignments, Purified, purify
from kb.retrieval import FusionRetriever, RetrievalSettings, select_retrieval
from kb.storage import (
    FORMAT_VERSION,
    DamagedKnowledgeBase,
    PairsWriter,
    content_version,
    damaged_files,
    digest_files,
    file_digest,
    read_manifest,
    read_pairs,
    recover,
    replacing,
    write_manifest,
)

logger = logging.getLogger(__name__)

# Queries that k and alpha are measured on at most.
RETRIEVAL_QUERIES = 2000


class KnowledgeBaseSettings(BaseModel):
    """What the knowledge base is made of."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Literal["internal", "external"]] = Field(
        ["internal", "external"], min_length=1, description="sides that can be retrieved from"
    )
    purify: bool = Field(True, description="align and filter the external side")
    mapping: MappingSettings = Field(
        default_factory=MappingSettings, description="prediction of the missing half's embedding"
    )
    alignment: AlignmentSettings = Field(
        default_factory=AlignmentSettings, description="rotation of the external side"
    )
    filter: FilterSettings = Field(
        default_factory=FilterSettings, description="which external pairs are kept"
    )
    index: IndexSettings = Field(
        default_factory=IndexSettings, description="nearest-neighbour search"
    )
    retrieval: RetrievalSettings = Field(
        default_factory=RetrievalSettings, description="which pairs ground a row"
    )
    device: str = Field("auto", description="where products run: auto, cpu, cuda")

    @classmethod
    def paper(cls) -> KnowledgeBaseSettings:
        """Everything as the paper has it."""
        return cls(
            mapping=MappingSettings(method="mlp"),
            alignment=AlignmentSettings(gamma=0.0),
            filter=FilterSettings(tau_cent=0.6, tau_inst=0.6, provisional_alignment=False),
            retrieval=RetrievalSettings(k=10, alpha=0.5),
        )

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json", exclude={"device"})


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


class KnowledgeBase:
    """Pairs that can be retrieved from, with the mapping between their modalities.

    Made by `build` or `load`.

    Attributes
    ----------
    folder : Path
    manifest : dict
    pairs : pyarrow.Table
        Internal pairs first, then the kept external ones, memory-mapped.
    embeddings : dict
        Per modality float16 memory maps in the order of `pairs`, aligned.
    mapping : CrossModalMapping
    retriever : FusionRetriever
        With k and alpha as chosen.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        pairs: pa.Table,
        embeddings: Mapping[Modality, np.ndarray],
        mapping: CrossModalMapping,
        retriever: FusionRetriever,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.pairs = pairs
        self.embeddings = embeddings
        self.mapping = mapping
        self.retriever = retriever

    @property
    def version(self) -> str:
        """Digest of the content: pairs, embeddings and mapping."""
        return str(self.manifest["version"])

    def __len__(self) -> int:
        return len(self.pairs)

    def pseudo(self, embeddings: np.ndarray, modality: Modality) -> np.ndarray:
        """Pseudo-embeddings of the missing half, from rows [n, d] of the observed `modality`."""
        return self.mapping.map(embeddings, source=modality)

    def pair(self, row: int) -> dict[str, Any]:
        """All columns of a pair."""
        if not 0 <= row < len(self.pairs):
            raise IndexError(f"row must be within 0 and {len(self.pairs) - 1}; got {row}")
        return dict(self.pairs.slice(row, 1).to_pylist()[0])

    @classmethod
    def build(
        cls,
        folder: str | Path,
        internal: Pairs,
        external: Sequence[Pairs] = (),
        settings: KnowledgeBaseSettings | None = None,
        random_state: int = 0,
        *,
        shared_space: bool = True,
        encoder: Mapping[str, Any] | None = None,
    ) -> KnowledgeBase:
        """Builds the knowledge base and swaps it into `folder` whole.

        Parameters
        ----------
        folder : path
            An earlier knowledge base there stays until the new one is complete.
        internal : Pairs
            The dataset's complete pairs.
        external : sequence of Pairs
            One per external dataset.
        settings : KnowledgeBaseSettings
        random_state : int
        shared_space : bool
            Whether image and text embeddings share a space.
        encoder : mapping, optional
            What identifies the encoder, for the manifest.

        Raises
        ------
        NoCompletePairs
            `internal` is empty.
        ValueError
            Dimensions differ, an id comes twice, or an embedding is not finite.
        """
        settings = settings or KnowledgeBaseSettings()
        external = [pairs for pairs in external if len(pairs)]
        _check(internal, external)
        watch = Stopwatch()
        use_external = "external" in settings.sources and bool(external)
        with replacing(Path(folder)) as building:
            with watch.step("mapping"):
                mapping = CrossModalMapping(settings.mapping, random_state, settings.device)
                mapping.fit(internal.embeddings["image"], internal.embeddings["text"])
                (building / "mapping").mkdir()
                mapping.save(building / "mapping" / "mapping")
            purified: Purified | None = None
            if use_external and settings.purify:
                with watch.step("purification"):
                    purified = purify(
                        internal.embeddings,
                        {m: Stacked([p.embeddings[m] for p in external]) for m in MODALITIES},
                        settings.filter,
                        settings.alignment,
                        random_state,
                        settings.device,
                    )
                _save_purified(building, purified, external)
            with watch.step("pairs"):
                counts = _write_pairs(
                    building, internal, external if use_external else [], settings, purified
                )
            if not sum(counts.values()):
                raise ValueError(
                    "the knowledge base would hold no pair: no external pair was kept and "
                    f"sources is {settings.sources}; add 'internal' to it or check the external set"
                )
            pairs = read_pairs(building / "pairs.arrow")
            embeddings = _open_embeddings(building)
            with watch.step("index"):
                indexes = _build_indexes(building, embeddings, settings, random_state)
            with watch.step("retrieval"):
                retrieval, evidence = _choose_retrieval(
                    pairs,
                    embeddings,
                    indexes,
                    mapping,
                    settings.retrieval,
                    internal,
                    shared_space,
                    random_state,
                )
            with watch.step("digests"):
                files = digest_files(building)
            manifest = {
                "format_version": FORMAT_VERSION,
                "version": content_version(files, _content(files)),
                "settings": settings.model_dump(mode="json"),
                "random_state": random_state,
                "encoder": dict(encoder) if encoder is not None else None,
                "shared_space": shared_space,
                "dimensions": {m: int(internal.embeddings[m].shape[1]) for m in MODALITIES},
                "counts": {
                    "internal_in": len(internal),
                    "external_in": sum(len(p) for p in external),
                    **counts,
                    "pairs": len(pairs),
                    "by_source": _by_source(pairs),
                },
                "mapping": {
                    "pairs": mapping.pairs_,
                    "chosen": mapping.chosen_,
                    "constant": mapping.constant_,
                    "scores": mapping.scores_,
                },
                "purification": None if purified is None else purified.evidence,
                "retrieval": {
                    "mode": retrieval.mode,
                    "k": retrieval.k,
                    "alpha": retrieval.alpha,
                    "evidence": evidence,
                },
                "indexes": {
                    m: {"kind": index.kind, "rows": len(index), **index.evidence}
                    for m, index in indexes.items()
                },
                "steps": watch.steps,
                "files": files,
            }
            write_manifest(building, manifest)
        return cls.load(folder, thorough=False, device=settings.device)

    @classmethod
    def load(
        cls, folder: str | Path, *, thorough: bool = True, device: str | None = None
    ) -> KnowledgeBase:
        """Opens a knowledge base; a damaged index is rebuilt from the embeddings.

        Parameters
        ----------
        folder : path
        thorough : bool
            Compare digests, which reads every file once; sizes are always compared.
        device : str, optional
            In place of the one in the settings.

        Raises
        ------
        DamagedKnowledgeBase
            A file other than an index is missing or not what was written: build it again.
        """
        folder = Path(folder)
        recover(folder)
        manifest = read_manifest(folder)
        settings = KnowledgeBaseSettings(**manifest["settings"])
        if device is not None:
            settings = settings.model_copy(update={"device": device})
        damaged = damaged_files(folder, manifest, thorough=thorough)
        lost = [name for name in damaged if not name.startswith("indexes/")]
        if lost:
            raise DamagedKnowledgeBase(
                f"{folder / lost[0]}: missing or damaged (digest differs from the manifest's); "
                "the knowledge base has to be built again"
            )
        pairs = read_pairs(folder / "pairs.arrow")
        embeddings = _open_embeddings(folder)
        if damaged:
            logger.warning("rebuilding damaged index files: %s", ", ".join(damaged))
            indexes = _build_indexes(folder, embeddings, settings, manifest["random_state"])
            for name in list(manifest["files"]):
                if name.startswith("indexes/"):
                    path = folder / name
                    size, digest = path.stat().st_size, file_digest(path)
                    manifest["files"][name] = {"bytes": size, "digest": digest}
            write_manifest(folder, manifest)
        else:
            indexes = {
                m: EmbeddingIndex.load(folder / "indexes" / m, settings.device) for m in MODALITIES
            }
        mapping = CrossModalMapping.load(folder / "mapping" / "mapping", settings.device)
        chosen = {name: manifest["retrieval"][name] for name in ("k", "alpha")}
        retriever = FusionRetriever(
            embeddings,
            indexes,
            _id_array(pairs),
            mapping,
            settings.retrieval.model_copy(update=chosen),
            manifest["shared_space"],
        )
        return cls(folder, manifest, pairs, embeddings, mapping, retriever)


def _check(internal: Pairs, external: Sequence[Pairs]) -> None:
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
    ids = pa.chunked_array(
        [chunk.cast(pa.string()) for p in (internal, *external) for chunk in p.table["id"].chunks],
        pa.string(),
    )
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        raise ValueError(f"id {twice[0]['values'].as_py()!r} stands for more than one pair")


def _save_purified(folder: Path, purified: Purified, external: Sequence[Pairs]) -> None:
    verdicts = purified.verdicts
    columns = {
        "id": pa.chunked_array(
            [chunk.cast(pa.string()) for p in external for chunk in p.table["id"].chunks],
            pa.string(),
        ),
        "source": pa.chunked_array(
            [chunk.cast(pa.string()) for p in external for chunk in p.table["source"].chunks],
            pa.string(),
        ),
        "verdict": pa.array(verdicts.verdict).dictionary_encode(),
        "cluster": pa.array(verdicts.cluster),
        "centroid_similarity": pa.array(verdicts.centroid_similarity),
        "instance_similarity": pa.array(verdicts.instance_similarity),
    }
    pq.write_table(pa.table(columns), folder / "verdicts.parquet")
    (folder / "filter").mkdir()
    purified.filter.save(folder / "filter" / "filter")
    if purified.alignments is None:
        logger.warning(
            "no external pair passed the filter: the knowledge base holds internal pairs only"
        )
        return
    (folder / "alignment").mkdir()
    for modality, alignment in purified.alignments.items():
        alignment.save(folder / "alignment" / modality)


def _write_pairs(
    folder: Path,
    internal: Pairs,
    external: Sequence[Pairs],
    settings: KnowledgeBaseSettings,
    purified: Purified | None,
) -> dict[str, int]:
    """Writes the table and both embedding files; returns the rows of each side."""
    (folder / "embeddings").mkdir()
    sides: list[tuple[Pairs, str, np.ndarray | None, Alignments | None]] = []
    if "internal" in settings.sources:
        sides.append((internal, "internal", None, None))
    first = 0
    for pairs in external:
        kept = None
        if purified is not None:
            kept = purified.verdicts.kept[first : first + len(pairs)]
        sides.append((pairs, "external", kept, purified.alignments if purified else None))
        first += len(pairs)
    counts = {"internal": 0, "external": 0}
    schemas = [_with_origin(pairs.table.slice(0, 0), "").schema for pairs, *_ in sides]
    if not schemas:
        return counts
    with PairsWriter(folder / "pairs.arrow", schemas) as writer:
        for pairs, origin, kept, _ in sides:
            table = _with_origin(pairs.table, origin)
            table = table if kept is None else table.filter(pa.array(kept))
            writer.write(table)
            counts[origin] += len(table)
    for modality in MODALITIES:
        path = folder / "embeddings" / f"{modality}.npy"
        with EmbeddingWriter(path, internal.embeddings[modality].shape[1]) as embeddings:
            for pairs, _, kept, alignments in sides:
                start = 0
                for block in chunks(pairs.embeddings[modality]):
                    size = len(block)
                    if kept is not None:
                        block = block[kept[start : start + size]]
                    start += size
                    if alignments is not None:
                        block = alignments[modality].transform(block)
                    embeddings.append(block)
    return counts


def _with_origin(table: pa.Table, origin: str) -> pa.Table:
    """The table with its side, "internal" or "external", as a column."""
    column = pa.array([origin] * len(table), pa.string())
    if "origin" in table.column_names:
        table = table.drop_columns(["origin"])
    return table.append_column("origin", column)


def _open_embeddings(folder: Path) -> dict[Modality, np.ndarray]:
    return {m: open_embeddings(folder / "embeddings" / f"{m}.npy") for m in MODALITIES}


def _build_indexes(
    folder: Path,
    embeddings: Mapping[Modality, np.ndarray],
    settings: KnowledgeBaseSettings,
    random_state: int,
) -> dict[Modality, EmbeddingIndex]:
    shutil.rmtree(folder / "indexes", ignore_errors=True)
    (folder / "indexes").mkdir()
    indexes: dict[Modality, EmbeddingIndex] = {}
    for modality in MODALITIES:
        indexes[modality] = EmbeddingIndex.build(
            embeddings[modality], settings.index, random_state, settings.device
        )
        indexes[modality].save(folder / "indexes" / modality)
    return indexes


def _choose_retrieval(
    pairs: pa.Table,
    embeddings: Mapping[Modality, np.ndarray],
    indexes: Mapping[Modality, EmbeddingIndex],
    mapping: CrossModalMapping,
    settings: RetrievalSettings,
    internal: Pairs,
    shared_space: bool,
    random_state: int,
) -> tuple[RetrievalSettings, list[dict[str, float]]]:
    """k and alpha, measured on internal pairs by pseudo-embeddings that did not see them."""
    retriever = FusionRetriever(
        embeddings, indexes, _id_array(pairs), mapping, settings, shared_space
    )
    chosen = np.arange(len(mapping.rows_))
    if len(chosen) > RETRIEVAL_QUERIES:
        generator = np.random.default_rng(random_state)
        chosen = np.sort(generator.choice(len(chosen), RETRIEVAL_QUERIES, replace=False))
    rows = mapping.rows_[chosen]
    pseudo: dict[Modality, np.ndarray] | None = None
    if mapping.out_of_fold_ is not None:
        pseudo = {m: mapping.out_of_fold_[m][chosen] for m in MODALITIES}
    queries = {m: take(internal.embeddings[m], rows) for m in MODALITIES}
    ids = internal.table["id"].take(pa.array(rows)).to_pylist()
    return select_retrieval(retriever, queries, ids, pseudo)


def _id_array(pairs: pa.Table) -> pa.Array:
    column = pairs["id"].cast(pa.string())
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _by_source(pairs: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(pairs["source"])
    return {str(c["values"].as_py()): c["counts"].as_py() for c in counts}


def _content(files: Mapping[str, Any]) -> list[str]:
    """Files that make the version: all but the indexes, which follow from the embeddings."""
    return [name for name in files if not name.startswith("indexes/")]
