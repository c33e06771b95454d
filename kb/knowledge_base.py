"""The purified dual knowledge base: built from complete and external pairs, kept in a folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from kb import contents
from kb.alignment import AlignmentSettings, OrthogonalAlignment
from kb.embeddings import MODALITIES, Modality, Stacked, take
from kb.filtering import ClusterFilter, FilterSettings
from kb.growth import Growth, compare
from kb.index import EmbeddingIndex, IndexSettings
from kb.mapping import CrossModalMapping, MappingSettings
from kb.pairs import Pairs, check, read_pairs
from kb.progress import Stopwatch
from kb.purification import Purified, joint_blocks, purify
from kb.retrieval import FusionRetriever, RetrievalSettings, select_retrieval
from kb.storage import (
    FORMAT_VERSION,
    DamagedKnowledgeBase,
    content_version,
    damaged_files,
    digest_files,
    file_digest,
    read_manifest,
    recover,
    replacing,
    write_manifest,
)

__all__ = ["DamagedKnowledgeBase", "KnowledgeBase", "KnowledgeBaseSettings", "Pairs"]

logger = logging.getLogger(__name__)

# Queries that k and alpha are measured on at most.
RETRIEVAL_QUERIES = 2000
Source = Literal["internal", "external"]


class KnowledgeBaseSettings(BaseModel):
    """What the knowledge base is made of."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Source] = Field(
        default=["internal", "external"],
        min_length=1,
        description="sides that can be retrieved from",
    )
    purify: bool = Field(default=True, description="align and filter the external side")
    refit_share: float = Field(
        default=0.1,
        ge=0,
        description="growth of the complete pairs beyond which mapping, filter and alignment are "
        "fitted anew; up to it new pairs simply join",
    )
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
    device: str = Field(default="auto", description="where products run: auto, cpu, cuda")

    @classmethod
    def paper(cls) -> KnowledgeBaseSettings:
        """Everything as the paper has it."""
        return cls(
            mapping=MappingSettings(method="mlp"),
            alignment=AlignmentSettings(gamma=0.0),
            filter=FilterSettings(
                tau_cent=0.6, tau_inst=0.6, instance="centroid", provisional_alignment=False
            ),
            retrieval=RetrievalSettings(k=10, alpha=0.5),
        )

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json", exclude={"device", "refit_share"})


class KnowledgeBase:
    """Pairs that can be retrieved from, with the mapping between their modalities.

    Made by `build`, `update` or `load`.

    Attributes
    ----------
    folder : Path
    manifest : dict
    pairs : pyarrow.Table
        Internal pairs first, then the kept external ones, then what joined later (columns
        `origin` and `added` tell); memory-mapped.
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
        """Digest of the content: pairs, embeddings, mapping, alignment and filter."""
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
        check(internal, external)
        watch = Stopwatch()
        dimensions: dict[Modality, int] = {
            m: int(internal.embeddings[m].shape[1]) for m in MODALITIES
        }
        with replacing(Path(folder)) as building:
            with watch.step("mapping"):
                mapping = CrossModalMapping(settings.mapping, random_state, settings.device)
                mapping.fit(internal.embeddings["image"], internal.embeddings["text"])
                (building / "mapping").mkdir()
                mapping.save(building / "mapping" / "mapping")
            purified: Purified | None = None
            used = external if "external" in settings.sources else []
            if used and settings.purify:
                with watch.step("purification"):
                    purified = purify(
                        internal.embeddings,
                        {m: Stacked([p.embeddings[m] for p in used]) for m in MODALITIES},
                        settings.filter,
                        settings.alignment,
                        random_state,
                        settings.device,
                    )
                _save_purified(building, purified, used)
            with watch.step("pairs"):
                sides = _sides(internal, used, settings, purified)
                counts = contents.write_contents(building, sides, dimensions, 0)
                known: list[tuple[Pairs, contents.Origin]] = [(internal, "internal")]
                known += [(pairs, "external") for pairs in external]
                contents.write_table(building / "known.parquet", [contents.known_table(known, 0)])
            if not sum(counts.values()):
                raise ValueError(
                    "the knowledge base would hold no pair: no external pair was kept and "
                    f"sources is {settings.sources}; add 'internal' to it or check the external set"
                )
            pairs = read_pairs(building / "pairs.arrow")
            embeddings = contents.open_contents(building)
            with watch.step("index"):
                indexes = contents.build_indexes(
                    building, embeddings, settings.index, random_state, settings.device
                )
            with watch.step("retrieval"):
                retriever = FusionRetriever(
                    embeddings,
                    indexes,
                    contents.id_array(pairs),
                    mapping,
                    settings.retrieval,
                    shared_space,
                )
                retrieval, evidence = _choose_retrieval(retriever, mapping, internal, random_state)
            with watch.step("digests"):
                files = digest_files(building)
            manifest = {
                "format_version": FORMAT_VERSION,
                "version": content_version(files, _content(files)),
                **_expected(settings, random_state, shared_space, encoder),
                "device": settings.device,
                "refit_share": settings.refit_share,
                "dimensions": dimensions,
                "counts": {
                    "internal_in": len(internal),
                    "internal_at_fit": len(internal),
                    "external_in": sum(len(p) for p in external),
                    "external_sources": sorted(
                        {s for p in external for s in contents.count_by_source(p.table)}
                    ),
                    **counts,
                    "pairs": len(pairs),
                    "by_source": contents.count_by_source(pairs),
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
                "indexes": _describe_indexes(indexes),
                "additions": [
                    _addition(0, len(internal), sum(len(p) for p in external), counts["external"])
                ],
                "steps": watch.steps,
                "files": files,
            }
            write_manifest(building, manifest)
        return cls.load(folder, thorough=False, device=settings.device)

    @classmethod
    def update(
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
        """The knowledge base of these pairs, with as little work as their novelty asks for.

        With nothing new the one in `folder` is opened. New pairs join it, by the mapping, the
        rotations, the clusters and the thresholds that it has. It is built anew where there is
        none or a damaged one, where settings, encoder or a known pair changed, where pairs are
        gone, where an external source is new, and where internal pairs grew by more than
        `settings.refit_share` since the last fit. Arguments and errors are those of `build`.
        """
        settings = settings or KnowledgeBaseSettings()
        folder = Path(folder)
        external = [pairs for pairs in external if len(pairs)]
        check(internal, external)
        try:
            held = cls.load(folder, device=settings.device)
            growth = compare(
                folder,
                held.manifest,
                _expected(settings, random_state, shared_space, encoder),
                internal,
                external,
                settings.refit_share,
            )
        except DamagedKnowledgeBase as error:
            growth = Growth(str(error))
        purifies = settings.purify and "external" in settings.sources
        if growth.external and purifies and not (folder / "alignment").is_dir():
            growth = Growth("no rotation to bring new external pairs in by")
        if growth.rebuild is not None:
            logger.info("building the knowledge base: %s", growth.rebuild)
            return cls.build(
                folder,
                internal,
                external,
                settings,
                random_state,
                shared_space=shared_space,
                encoder=encoder,
            )
        return held if growth.empty else held._extend(growth, settings)

    def _extend(self, growth: Growth, settings: KnowledgeBaseSettings) -> KnowledgeBase:
        """Writes a new folder with the old rows and the new ones, and swaps it in."""
        watch = Stopwatch()
        manifest = dict(self.manifest)
        number = len(manifest["additions"])
        use_external = "external" in settings.sources and bool(growth.external)
        with replacing(self.folder) as building:
            for name in ("mapping", "alignment", "filter"):
                if (self.folder / name).is_dir():
                    shutil.copytree(self.folder / name, building / name)
            sides = [contents.Side(Pairs(self.pairs, self.embeddings), None)]
            if growth.internal is not None and "internal" in settings.sources:
                sides.append(contents.Side(growth.internal, "internal"))
            with watch.step("purification"):
                if use_external:
                    sides += self._judge(growth.external, settings, building, number)
                elif (self.folder / "verdicts.parquet").exists():
                    shutil.copy2(self.folder / "verdicts.parquet", building)
            with watch.step("pairs"):
                counts = contents.write_contents(building, sides, manifest["dimensions"], number)
                known: list[tuple[Pairs, contents.Origin]] = [
                    (pairs, "external") for pairs in growth.external
                ]
                if growth.internal is not None:
                    known.insert(0, (growth.internal, "internal"))
                contents.write_table(
                    building / "known.parquet",
                    [
                        pq.read_table(self.folder / "known.parquet"),
                        contents.known_table(known, number),
                    ],
                )
            pairs = read_pairs(building / "pairs.arrow")
            with watch.step("index"):
                indexes = contents.extend_indexes(
                    self.folder,
                    building,
                    contents.open_contents(building),
                    settings.index,
                    manifest["random_state"],
                    settings.device,
                )
            with watch.step("digests"):
                files = digest_files(building)
            new_internal = 0 if growth.internal is None else len(growth.internal)
            new_external = sum(len(p) for p in growth.external)
            before = manifest["counts"]
            manifest |= {
                "version": content_version(files, _content(files)),
                "counts": {
                    **before,
                    "internal_in": before["internal_in"] + new_internal,
                    "external_in": before["external_in"] + new_external,
                    "internal": before["internal"] + counts["internal"],
                    "external": before["external"] + counts["external"],
                    "pairs": len(pairs),
                    "by_source": contents.count_by_source(pairs),
                },
                "indexes": _describe_indexes(indexes),
                "additions": [
                    *manifest["additions"],
                    _addition(number, new_internal, new_external, counts["external"]),
                ],
                "steps": watch.steps,
                "files": files,
            }
            write_manifest(building, manifest)
        return self.load(self.folder, thorough=False, device=settings.device)

    def _judge(
        self,
        external: Sequence[Pairs],
        settings: KnowledgeBaseSettings,
        building: Path,
        number: int,
    ) -> list[contents.Side]:
        """New external pairs through the filter and the rotations that are there."""
        if not settings.purify:
            return [contents.Side(pairs, "external") for pairs in external]
        cluster_filter = ClusterFilter.load(self.folder / "filter" / "filter", settings.device)
        alignments = {
            m: OrthogonalAlignment.load(self.folder / "alignment" / m) for m in MODALITIES
        }
        stacked = {m: Stacked([p.embeddings[m] for p in external]) for m in MODALITIES}
        verdicts = cluster_filter.judge(joint_blocks(stacked, alignments))
        contents.write_table(
            building / "verdicts.parquet",
            [
                pq.read_table(self.folder / "verdicts.parquet"),
                contents.verdict_table(verdicts, external, number),
            ],
        )
        sides, first = [], 0
        for pairs in external:
            kept = verdicts.kept[first : first + len(pairs)]
            sides.append(contents.Side(pairs, "external", kept, alignments))
            first += len(pairs)
        return sides

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
            In place of the one it was built with.

        Raises
        ------
        DamagedKnowledgeBase
            A file other than an index is missing or not what was written: build it again.
        """
        folder = Path(folder)
        recover(folder)
        manifest = read_manifest(folder)
        settings = KnowledgeBaseSettings(**manifest["settings"])
        device = device or manifest["device"]
        damaged = damaged_files(folder, manifest, thorough=thorough)
        lost = [name for name in damaged if not name.startswith("indexes/")]
        if lost:
            raise DamagedKnowledgeBase(
                f"{folder / lost[0]}: missing or damaged (not what the manifest records); "
                "the knowledge base has to be built again"
            )
        pairs = read_pairs(folder / "pairs.arrow")
        embeddings = contents.open_contents(folder)
        if damaged:
            logger.warning("rebuilding damaged index files: %s", ", ".join(damaged))
            indexes = contents.build_indexes(
                folder, embeddings, settings.index, manifest["random_state"], device
            )
            for path in sorted((folder / "indexes").iterdir()):
                manifest["files"][f"indexes/{path.name}"] = {
                    "bytes": path.stat().st_size,
                    "digest": file_digest(path),
                }
            write_manifest(folder, manifest)
        else:
            indexes = {m: EmbeddingIndex.load(folder / "indexes" / m, device) for m in MODALITIES}
        mapping = CrossModalMapping.load(folder / "mapping" / "mapping", device)
        chosen = {name: manifest["retrieval"][name] for name in ("k", "alpha")}
        retriever = FusionRetriever(
            embeddings,
            indexes,
            contents.id_array(pairs),
            mapping,
            settings.retrieval.model_copy(update=chosen),
            manifest["shared_space"],
        )
        return cls(folder, manifest, pairs, embeddings, mapping, retriever)


def _expected(
    settings: KnowledgeBaseSettings,
    random_state: int,
    shared_space: bool,
    encoder: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Entries of the manifest that must agree for a knowledge base to be of use again."""
    return {
        "settings": settings.identity(),
        "random_state": random_state,
        "shared_space": shared_space,
        "encoder": dict(encoder) if encoder is not None else None,
    }


def _sides(
    internal: Pairs,
    external: Sequence[Pairs],
    settings: KnowledgeBaseSettings,
    purified: Purified | None,
) -> list[contents.Side]:
    sides = []
    if "internal" in settings.sources:
        sides.append(contents.Side(internal, "internal"))
    first = 0
    for pairs in external:
        if purified is None:
            sides.append(contents.Side(pairs, "external"))
        else:
            kept = purified.verdicts.kept[first : first + len(pairs)]
            sides.append(contents.Side(pairs, "external", kept, purified.alignments))
        first += len(pairs)
    return sides


def _save_purified(folder: Path, purified: Purified, external: Sequence[Pairs]) -> None:
    table = contents.verdict_table(purified.verdicts, external, 0)
    contents.write_table(folder / "verdicts.parquet", [table])
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


def _choose_retrieval(
    retriever: FusionRetriever, mapping: CrossModalMapping, internal: Pairs, random_state: int
) -> tuple[RetrievalSettings, list[dict[str, float]]]:
    """k and alpha, measured on internal pairs by pseudo-embeddings that did not see them."""
    chosen = np.arange(len(mapping.rows_))
    if len(chosen) > RETRIEVAL_QUERIES:
        generator = np.random.default_rng(random_state)
        chosen = np.sort(generator.choice(len(chosen), RETRIEVAL_QUERIES, replace=False))
    rows = mapping.rows_[chosen]
    pseudo: dict[Modality, np.ndarray] | None = None
    if mapping.out_of_fold_ is not None:
        pseudo = {m: mapping.out_of_fold_[m][chosen] for m in MODALITIES}
    queries = {m: take(internal.embeddings[m], rows) for m in MODALITIES}
    ids = internal.table["id"].take(pa.array(rows)).cast(pa.string()).to_pylist()
    return select_retrieval(retriever, queries, ids, pseudo)


def _describe_indexes(indexes: Mapping[Modality, EmbeddingIndex]) -> dict[str, Any]:
    return {m: {"kind": i.kind, "rows": len(i), **i.evidence} for m, i in indexes.items()}


def _addition(number: int, internal: int, external: int, kept: int) -> dict[str, Any]:
    """One entry of the history: what came in together, and when."""
    return {
        "number": number,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "internal": internal,
        "external": external,
        "external_kept": kept,
    }


def _content(files: Mapping[str, Any]) -> list[str]:
    """Files that make the version: all but the indexes, which follow from the embeddings."""
    return [name for name in files if not name.startswith("indexes/")]
