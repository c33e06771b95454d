"""The knowledge base as a run reads it: what stands on disk, its pairs, and what was measured on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from generators.pictures import held
from kb.embeddings import Modality, normalise, take
from kb.encoders.ahead import ahead, usable_cores
from kb.knowledge_base import KnowledgeBase
from kb.retrieval import Hit
from kb.retrieval.excluded import Excluded
from kb.retrieval.second_look import search_again
from kb.storage import DamagedKnowledgeBase, read_manifest, version_of
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.dataset.settings import INTERNAL
from pipeline.dataset.sources import Sources
from pipeline.models.components import check_device
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import read_json, write_whole
from selection.niqe import NiqeModel
from selection.scales import Standards
from selection.scoring import Selector
from selection.settings import ScoringSettings

logger = logging.getLogger(__name__)

# The knowledge base's folder and the measured standards, within the run's.
FOLDER = "kb"
STANDARDS = "standards.json"
WARNINGS = "kb-warnings.json"
# Pictures by whose pseudo-texts the hubness of captions is measured.
HUB_PAIRS = 1000


@dataclass(frozen=True)
class Pair:
    """A pair of the knowledge base, with its picture where that was asked for.

    Attributes
    ----------
    row : int
        Its row in the knowledge base at hand; not to be stored.
    encoded : bytes or None
        The picture as it is stored; None where it was not asked for.
    picture : str or None
        The digest of that file at the build.
    fault : str or None
        Why there is no picture though it was asked for.
    """

    row: int
    id: str
    source: str
    licence: str | None
    captions: tuple[str, ...]
    image: Image.Image | None = None
    encoded: bytes | None = None
    fault: str | None = None
    picture: str | None = None


class StandingKnowledge:
    """The knowledge base in a run's folder; read on first use, and again after `forget`.

    Parameters
    ----------
    folder : Path
        The run's folder.
    sources : Sources
        Where pairs' pictures are.
    scoring : ScoringSettings
    seed : int
    device : str
        Where products run, by the config: what was built beside a GPU is of use without one.
    """

    def __init__(
        self, folder: Path, sources: Sources, scoring: ScoringSettings, seed: int, device: str
    ) -> None:
        self.folder = folder / FOLDER
        self._standards = folder / STANDARDS
        self._warnings = folder / WARNINGS
        self._sources = sources
        self._scoring = scoring
        self._seed = seed
        self._device = device
        self._base: KnowledgeBase | None = None
        self._selector: Selector | None = None

    @property
    def stands(self) -> bool:
        """Whether one was built; it may be damaged."""
        return (self.folder / "manifest.json").is_file()

    @property
    def base(self) -> KnowledgeBase:
        """The knowledge base of the last build, on the CPU wherever it was built.

        Raises
        ------
        DamagedKnowledgeBase
            It is damaged, or there is none.
        ConfigError
            The config names a GPU that is not there.
        """
        if self._base is None:
            check_device("knowledge_base.device", self._device)
            # A GPU is for the generator: a few rows at a time are searched for beside it.
            self._base = KnowledgeBase.load(self.folder, device="cpu")
        return self._base

    def checked(self) -> KnowledgeBase:
        """As `base`, for whoever can't mend it.

        Raises
        ------
        ConfigError
            It is damaged, or there is none.
        """
        try:
            return self.base
        except DamagedKnowledgeBase as error:
            raise ConfigError(
                f"the knowledge base is damaged ({error}); first: rag4dmc build CONFIG"
            ) from error

    def forget(self) -> None:
        """Drop what was read, for another may stand now."""
        self._base = None
        self._selector = None

    def keep_warnings(self, told: Sequence[str]) -> None:
        """Keep what a build warned of; what another did of the same fit still holds."""
        before = read_json(self._warnings) or {}
        fit = (read_json(self._standards) or {}).get("measured_for")
        still = before["told"] if before.get("fit") == fit else []
        kept = list(dict.fromkeys([*still, *told]))
        write_whole(self._warnings, json.dumps({"fit": fit, "told": kept}, ensure_ascii=False))

    def warnings(self) -> list[str]:
        """What the builds of what stands found that the user should know; nothing is loaded."""
        try:
            manifest = read_manifest(self.folder)
        except DamagedKnowledgeBase:
            return []
        purified = (manifest["purification"] or {}).get("warnings", [])
        told = (read_json(self._warnings) or {}).get("told", [])
        return list(dict.fromkeys([*purified, *told]))

    def version(self, of_mapping_alone: bool = False) -> str:
        """The version on disk, or of its mapping alone; "none" where it can't be read."""
        try:
            manifest = read_manifest(self.folder)
        except DamagedKnowledgeBase:
            return "none"
        if not of_mapping_alone:
            return str(manifest["version"])
        files = manifest["files"].items()
        mapping = {name: file for name, file in files if name.startswith("mapping/")}
        return version_of(mapping, (), {})

    @property
    def selector(self) -> Selector:
        """The selector, with the standards that were measured at the build."""
        if self._selector is None:
            values = json.loads(self._standards.read_text(encoding="utf-8"))
            model = values["niqe_model"]
            self._selector = Selector(
                self._scoring,
                Standards.from_dict(values["standards"]),
                None if model is None else NiqeModel.from_dict(model),
                self._pseudo_texts(),
            )
        return self._selector

    def _pseudo_texts(self) -> np.ndarray | None:
        """Pseudo-texts [m, d] of a sample of the dataset's own pictures, else of any that are held.

        By mappings that did not see them, where there are such: so are those of rows to complete.
        """
        if self.base.mapping.constant_["image"]:
            return None
        held_out = self.base.held_out()
        if held_out is not None:
            return normalise(held_out.predictions["image"][:HUB_PAIRS])
        own = pc.equal(self.base.pairs["source"], INTERNAL).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(own) if own.any() else np.arange(len(self.base))
        generator = np.random.default_rng(self._seed)
        rows = np.sort(generator.choice(rows, min(HUB_PAIRS, len(rows)), replace=False))
        return self.base.pseudo(take(self.base.embeddings["image"], rows), "image")

    def selector_of(self, row_id: str) -> Selector:
        """The one selector, whichever row it is."""
        return self.selector

    def pseudo(
        self, embeddings: np.ndarray, observed: Modality, ids: Sequence[str]
    ) -> np.ndarray | None:
        """Pseudo-embeddings [n, d] of the missing half; None where the mapping says nothing."""
        if self.base.mapping.constant_[observed]:
            return None
        return self.base.pseudo(embeddings, observed)

    def retrieve(
        self, embeddings: np.ndarray, observed: Modality, ids: Sequence[str]
    ) -> list[list[Hit]]:
        """The pairs that ground each row, best first; never a row's own."""
        return self.base.retriever.retrieve(embeddings, observed, ids=ids)

    def retrieve_again(
        self,
        embeddings: np.ndarray,
        observed: Modality,
        ids: Sequence[str],
        candidates: np.ndarray,
        seen: np.ndarray,
        count: int,
    ) -> list[list[Hit]]:
        """So many pairs for each row, best first, by a candidate too; see `kb.retrieval.second_look`."""
        retriever = self.base.retriever
        without = Excluded.nothing().and_rows(seen)
        found = search_again(retriever, embeddings, observed, candidates, ids, without, count)
        return found.hits(retriever.ids)

    def pairs(
        self, rows: Sequence[int], with_images: bool, longest_side: int | None = None
    ) -> dict[int, Pair]:
        """Pairs of the knowledge base by row, with their pictures when asked for.

        With a `longest_side` pictures are shrunk to it (`generators.pictures.held`). One that can't be
        decoded any more, or is another than at the build, is the pair's `fault`, and told in a warning.
        """
        stored = {row: self.base.pair(row) for row in dict.fromkeys(rows)}
        encoded: list[bytes | None] = [None] * len(stored)
        if with_images:
            encoded = self._sources.encoded_pictures(list(stored.values()))

        def seen(
            asked: tuple[Mapping[str, Any], bytes | None],
        ) -> tuple[Image.Image | None, str | None]:
            pair, data = asked
            if data is not None and digest(data) != pair["picture"]:
                return None, "another picture is at its place now"
            limit = self._sources.of(pair["source"]).settings.max_pixels
            try:
                return held(decode(data or b"", limit, longest_side), longest_side), None
            except UndecodableImage as error:
                return None, f"the picture can't be decoded any more: {error}"

        pictures: Iterator[tuple[Image.Image | None, str | None]] = repeat((None, None))
        if with_images:
            asked = list(zip(stored.values(), encoded, strict=True))
            pictures = ahead(seen, asked, usable_cores(), len(asked) or 1)
        found = {}
        for (row, pair), data, (image, fault) in zip(
            stored.items(), encoded, pictures, strict=False
        ):
            if fault is not None:
                logger.warning("pair %r has no picture any more: %s", pair["id"], fault)
            captions = tuple(pair["text"])
            known = (row, pair["id"], pair["source"], pair["licence"], captions)
            found[row] = Pair(*known, image, data, fault, pair["picture"])
        return found
