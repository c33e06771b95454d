"""The purified dual knowledge base: built from complete and external pairs, kept in a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kb import contents
from kb.building import build
from kb.embeddings import MODALITIES, Modality
from kb.fitting import HELD_OUT
from kb.growth import Growth, compare
from kb.index import EmbeddingIndex
from kb.joining import join
from kb.mapping import CrossModalMapping
from kb.mapping.held_out import HeldOut
from kb.pairs import Pairs, check, read_pairs
from kb.purification import ALIGNMENT
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.retrieval import FusionRetriever
from kb.retrieval.learning import FUSION, load_fusions
from kb.retrieval.preference import Preference
from kb.storage import (
    DamagedKnowledgeBase,
    damaged_files,
    file_digest,
    read_manifest,
    recover,
    write_manifest,
)

__all__ = ["DamagedKnowledgeBase", "KnowledgeBase", "KnowledgeBaseSettings", "Pairs", "Recipe"]

logger = logging.getLogger(__name__)


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
        With mode, k, alpha, consensus and what external pairs lose, as chosen.
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
        """Digest of what can be retrieved and how: see `kb.storage.version_of`."""
        return str(self.manifest["version"])

    def __len__(self) -> int:
        return len(self.pairs)

    def pseudo(self, embeddings: np.ndarray, modality: Modality) -> np.ndarray:
        """Pseudo-embeddings of the missing half, from rows [n, d] of the observed `modality`."""
        return self.mapping.map(embeddings, source=modality)

    def held_out(self) -> HeldOut | None:
        """Pairs of the last fit as mappings without them predict them; None below 32 pairs."""
        return HeldOut.load(self.folder / HELD_OUT)

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
        recipe: Recipe | None = None,
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
        recipe : Recipe
            Settings, seed, and what the embeddings come from.

        Raises
        ------
        NoCompletePairs
            `internal` is empty, or no pair could be retrieved from.
        ValueError
            Dimensions differ, an id comes twice, or an embedding is not finite or all zero.
        """
        recipe = recipe or Recipe()
        external = [pairs for pairs in external if len(pairs)]
        check(internal, external)
        build(Path(folder), internal, external, recipe)
        return cls.load(folder, thorough=False, device=recipe.settings.device)

    @classmethod
    def update(
        cls,
        folder: str | Path,
        internal: Pairs,
        external: Sequence[Pairs] = (),
        recipe: Recipe | None = None,
    ) -> KnowledgeBase:
        """The knowledge base of these pairs, with as little work as their novelty asks for.

        With nothing new the one in `folder` is opened. New pairs join it, by the mapping, the
        rotations, the clusters and the thresholds that it has, and pairs that are gone leave. It
        is built anew where there is none or a damaged one, where settings or encoder changed,
        where an external source is new or gone, and where more internal pairs came or went since
        the last fit than `settings.refit_share`. Of damage to an index alone only the indexes are
        built again. Nobody else may write in `folder`. Arguments and errors are those of `build`.
        """
        recipe = recipe or Recipe()
        folder = Path(folder)
        external = [pairs for pairs in external if len(pairs)]
        check(internal, external)
        growth = _growth(folder, internal, external, recipe)
        if growth.rebuild is not None:
            logger.info("building the knowledge base: %s", growth.rebuild)
            return cls.build(folder, internal, external, recipe)
        if not growth.empty:
            join(folder, read_manifest(folder), growth, internal, recipe)
        return cls.load(folder, thorough=False, device=recipe.settings.device)

    @classmethod
    def load(
        cls, folder: str | Path, *, thorough: bool = True, device: str | None = None
    ) -> KnowledgeBase:
        """Opens a knowledge base, and writes nothing: `update` mends one that is damaged.

        At the moment when another is swapped in, there may be none to open.

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
            A file is missing or not what was written.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        settings = KnowledgeBaseSettings(**manifest["settings"])
        device = device or manifest["device"]
        damaged = damaged_files(folder, manifest, thorough=thorough)
        if damaged:
            raise _damage(folder, damaged)
        pairs = read_pairs(folder / "pairs.arrow")
        embeddings = contents.open_contents(folder)
        indexes = {m: EmbeddingIndex.load(folder / "indexes" / m, device) for m in MODALITIES}
        mapping = CrossModalMapping.load(folder / "mapping" / "mapping", device)
        chosen = {name: manifest["retrieval"][name] for name in contents.RETRIEVAL}
        retriever = FusionRetriever(
            embeddings,
            indexes,
            contents.id_array(pairs),
            mapping,
            settings.retrieval.model_copy(update=chosen),
            manifest["shared_space"],
            contents.digest_arrays(pairs),
            load_fusions(folder / FUSION),
            Preference(contents.external_rows(pairs), manifest["retrieval"][contents.PENALTY]),
        )
        return cls(folder, manifest, pairs, embeddings, mapping, retriever)


def _damage(folder: Path, damaged: Sequence[str]) -> DamagedKnowledgeBase:
    return DamagedKnowledgeBase(
        f"{folder / damaged[0]}: missing or damaged (not what the manifest records)"
    )


def _mended(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The manifest of a knowledge base, once its files are whole.

    Raises
    ------
    DamagedKnowledgeBase
        A file other than an index, which follows from the embeddings, is missing or damaged.
    """
    recover(folder)
    manifest = read_manifest(folder)
    damaged = damaged_files(folder, manifest)
    if not damaged:
        return manifest
    lost = [name for name in damaged if not name.startswith("indexes/")]
    if lost:
        raise _damage(folder, lost)
    logger.warning("rebuilding damaged index files: %s", ", ".join(damaged))
    settings = KnowledgeBaseSettings(**manifest["settings"])
    seed, device = manifest["random_state"], recipe.settings.device
    embeddings = contents.open_contents(folder)
    indexes = contents.build_indexes(
        folder, embeddings, settings.index, seed, device, None, manifest["indexes"]
    )
    manifest["indexes"] = {m: index.describe() for m, index in indexes.items()}
    for path in sorted((folder / "indexes").iterdir()):
        manifest["files"][f"indexes/{path.name}"] = {
            "bytes": path.stat().st_size,
            "digest": file_digest(path),
        }
    write_manifest(folder, manifest)
    return manifest


def _growth(folder: Path, internal: Pairs, external: Sequence[Pairs], recipe: Recipe) -> Growth:
    """What is new, gone or changed, by the folder; damage asks for a rebuild."""
    settings = recipe.settings
    try:
        manifest = _mended(folder, recipe)
    except DamagedKnowledgeBase as error:
        return Growth(str(error))
    growth = compare(
        folder,
        manifest,
        recipe.identity(),
        internal,
        external,
        settings.refit_share,
        settings.external_fitted,
    )
    purifies = settings.purify and "external" in settings.sources
    if growth.external and purifies and not (folder / ALIGNMENT).is_dir():
        return Growth("no rotation to bring new external pairs in by")
    if growth.rebuild is None and not growth.staying_pairs.any() and growth.internal is None:
        return Growth("no pair stays")
    return growth
