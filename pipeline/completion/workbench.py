"""What a process needs at hand to complete rows: the encoder, the knowledge base, one generator.

Made once a process and loaded piece by piece on first use; at most one generator is held at a time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from kb.embeddings import InvalidEmbedding, Modality, normalise, take
from kb.knowledge_base import KnowledgeBase
from kb.storage import DamagedKnowledgeBase, read_manifest, version_of
from pipeline.completion.memory import Memory
from pipeline.config.config import Config
from pipeline.dataset.catalog import Catalog, digest, encoded_images, fetch
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.external import INTERNAL
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.dataset.schema import SCHEMA_VERSION
from pipeline.ledger.comparison import ATTEMPTS, PASSING
from pipeline.models.components import Part
from pipeline.models.loading import Loading
from pipeline.models.resolution import ResolvedModel
from pipeline.storage.errors import ConfigError
from selection.niqe import NiqeModel
from selection.scoring import Selector
from selection.standards import Standards

logger = logging.getLogger(__name__)

STANDARDS = "standards.json"
# Pictures by whose pseudo-texts the hubness of captions is measured.
HUB_PAIRS = 1000
CANDIDATES = "candidates.sqlite"


class Workbench:
    """The parts of a run, made from its config.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    memory : Memory or None
        Candidates of earlier runs, which the generators are not asked for again.
    loading : Loading
        Models that are being loaded.
    catalogs : dict
        What was scanned, by source: once a job.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._resolved: dict[str, dict[str, ResolvedModel]] = {}
        self._generator: tuple[str, Any] | None = None
        self.memory: Memory | None = None
        self.loading = Loading()
        self._knowledge_base: KnowledgeBase | None = None
        self._selector: Selector | None = None
        self.catalogs: dict[str, Catalog] = {}

    def models(self, part: Part) -> Mapping[str, ResolvedModel]:
        """The local models of a part, resolved once."""
        if part.section not in self._resolved:
            self._resolved[part.section] = part.resolve(self.config.base, self.config.run.offline)
        return self._resolved[part.section]

    def identity(self, part: Part) -> dict[str, Any]:
        """What a part's output depends on."""
        return part.identity(self.models(part))

    @cached_property
    def dataset(self) -> Dataset:
        """The incomplete dataset."""
        return Dataset.open(self.config.dataset, self.config.base)

    @cached_property
    def externals(self) -> dict[str, Dataset]:
        """The external datasets by name."""
        return {
            settings.name: Dataset.open(settings, self.config.base)
            for settings in self.config.external
        }

    @cached_property
    def encoder(self) -> Any:
        """The encoder, loaded."""
        part = self.config.encoder_part()
        made = part.create(self.models(part))
        self._load(part, made)
        return made

    def generator(self, missing: Modality) -> Any:
        """The captioner or the image generator, loaded; the other one is freed.

        With a memory it is loaded once there is something that the memory does not hold.
        """
        if self._generator is None or self._generator[0] != missing:
            self.close_generator()
            part = self.config.generator_part(missing)
            made = part.create(self.models(part))
            if self.memory is None and self.config.run.remember:
                self.memory = Memory(self.config.folder / CANDIDATES)
            if self.memory is None:
                self._load(part, made)
            else:
                load = partial(self._load, part)
                made = self.memory.around(made, self.identity(part), load)
            self._generator = (missing, made)
        return self._generator[1]

    def try_generator(self, missing: Modality) -> None:
        """Load a generator and free it again, to know that it can be loaded."""
        part = self.config.generator_part(missing)
        made = part.create(self.models(part))
        try:
            self._load(part, made)
        finally:
            made.close()

    def _load(self, part: Part, made: Any) -> None:
        names = ", ".join(model.name for model in self.models(part).values())
        with self.loading.of(f"{part.section} {names or part.kind}"):
            part.load(made)

    def close_generator(self) -> None:
        if self._generator is not None:
            self._generator[1].close()
            self._generator = None

    def close(self) -> None:
        """Free the models and what was read of the knowledge base; what is used is loaded again."""
        self.close_generator()
        if "encoder" in self.__dict__:
            self.__dict__.pop("encoder").close()
        self.forget()

    @property
    def embeddings_folder(self) -> Path:
        """Where embeddings are kept by content."""
        own, shared = self.config.folder / "embeddings", self.config.run.embeddings
        return own if shared is None else (self.config.base / shared).resolve()

    @property
    def knowledge_base_folder(self) -> Path:
        return self.config.folder / "kb"

    @property
    def knowledge_base(self) -> KnowledgeBase:
        """The knowledge base as it stands on disk; call `forget` after building another."""
        if self._knowledge_base is None:
            self._knowledge_base = KnowledgeBase.load(self.knowledge_base_folder)
        return self._knowledge_base

    def knowledge_base_warnings(self) -> list[str]:
        """What the last build found that the user should know; without loading anything."""
        try:
            manifest = read_manifest(self.knowledge_base_folder)
        except DamagedKnowledgeBase:
            return []
        return list((manifest["purification"] or {}).get("warnings", []))

    @property
    def selector(self) -> Selector:
        """The selector with the standards that were measured at the build."""
        if self._selector is None:
            path = self.config.folder / STANDARDS
            values = json.loads(path.read_text(encoding="utf-8"))
            model = values["niqe_model"]
            self._selector = Selector(
                self.config.selection,
                Standards.from_dict(values["standards"]),
                None if model is None else NiqeModel.from_dict(model),
                self._pseudo_texts(),
            )
        return self._selector

    def _pseudo_texts(self) -> np.ndarray | None:
        """Pseudo-texts [m, d] of a sample of the dataset's own pictures, else of any that are held."""
        knowledge = self.knowledge_base
        if knowledge.mapping.constant_["image"]:
            return None
        own = pc.equal(knowledge.pairs["source"], INTERNAL).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(own) if own.any() else np.arange(len(knowledge))
        generator = np.random.default_rng(self.config.run.seed)
        rows = np.sort(generator.choice(rows, min(HUB_PAIRS, len(rows)), replace=False))
        return knowledge.pseudo(take(knowledge.embeddings["image"], rows), "image")

    def forget(self) -> None:
        """Drop what was read of the knowledge base."""
        self._knowledge_base = None
        self._selector = None

    def embed(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        """Unit embeddings [n, d] of images (PIL) or of texts, each a list of captions.

        A row with several captions gets the mean of theirs. Images may come from a generator: a
        few batches of them are held.

        Raises
        ------
        ConfigError
            The encoder gives an embedding that is not finite or all zero.
        """
        try:
            if modality == "image":
                return normalise(self.encoder.encode(items, "image"))
            rows = list(items)
            captions = [caption for row in rows for caption in row]
            embeddings = self.encoder.encode(captions, "text")
            if len(captions) == len(rows):
                return normalise(embeddings)
            starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
            return normalise(np.add.reduceat(embeddings, starts, axis=0))
        except InvalidEmbedding as error:
            raise ConfigError(
                f"encoder: must give {modality} embeddings that are finite and not zero; got {error}"
            ) from None

    def example_pairs(self, rows: Sequence[int], with_images: bool) -> dict[int, dict[str, Any]]:
        """Pairs of the knowledge base by row: its columns, and `image` decoded when asked for.

        A pair whose picture can't be decoded any more is left out, with a warning.
        """
        pairs = {row: self.knowledge_base.pair(row) for row in dict.fromkeys(rows)}
        if not with_images:
            return pairs
        by_source: dict[str, list[int]] = {}
        for row, pair in pairs.items():
            by_source.setdefault(pair["source"], []).append(row)
        for source, wanted in by_source.items():
            dataset = self.source(source)
            numbers = {file.name: number for number, file in enumerate(dataset.files)}
            places = [(numbers[pairs[row]["file"]], pairs[row]["position"]) for row in wanted]
            images = encoded_images(fetch(dataset, places)).to_pylist()
            for row, data in zip(wanted, images, strict=True):
                pairs[row]["bytes"] = data
                try:
                    pairs[row]["image"] = decode(data or b"", dataset.settings.max_pixels)
                except UndecodableImage as error:
                    gone = pairs.pop(row)
                    logger.warning("pair %r grounds no row any more: %s", gone["id"], error)
        return pairs

    def row_settings(self) -> dict[str, dict[str, str]]:
        """What rows depend on besides their content: by kind, a digest by section of the config.

        Kinds are the missing half, "image" or "text", where it has a generator, and `PASSING` for
        rows that pass through.
        """
        config = self.config
        schema = {"schema": str(SCHEMA_VERSION)}
        found = {PASSING: schema}
        for missing in config.made:
            half = "caption" if missing == "text" else "image"
            part = config.generator_part(missing)
            knowledge = config.knowledge_base.identity()
            own: dict[str, Any] = {
                "run.seed": config.run.seed,
                "encoder": self.identity(config.encoder_part()),
                # Without examples nothing is asked of it but what the missing half may be like.
                "knowledge_base": knowledge
                if config.generation.grounded
                else {"mapping": knowledge["mapping"]},
                "generation": config.generation.identity(missing),
                part.section: self.identity(part),
                f"selection.{half}": getattr(config.selection, half).identity(),
            }
            if config.run.on_kb_change == "redo":
                own["content of the knowledge base"] = self._standing_version()
            found[missing] = {
                **schema,
                ATTEMPTS: str(config.generation.attempts),
                **{
                    name: digest(json.dumps(value, sort_keys=True, default=str))[:16]
                    for name, value in own.items()
                },
            }
        return found

    def _standing_version(self) -> str:
        """The version of what rows take from the knowledge base as it stands on disk."""
        try:
            manifest = read_manifest(self.knowledge_base_folder)
        except DamagedKnowledgeBase:
            return "none"
        if self.config.generation.grounded:
            return str(manifest["version"])
        files = manifest["files"].items()
        mapping = {name: file for name, file in files if name.startswith("mapping/")}
        return version_of(mapping, (), {})

    def source(self, name: str) -> Dataset:
        """The dataset that a pair's `source` names."""
        return self.dataset if name == INTERNAL else self.externals[name]
