"""Standards of pictures' scores, measured on the dataset's own pairs and kept beside the fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from kb.embeddings import normalise
from kb.knowledge_base import KnowledgeBase
from kb.pairs import Pairs
from pipeline.config.config import Config
from pipeline.dataset.catalog import Catalog
from pipeline.knowledge.embedding import decoded
from pipeline.knowledge.standing import STANDARDS
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import read_json, write_whole
from selection.niqe import NiqeModel, TooFewBlocks
from selection.scoring import Selector

STANDARD_PAIRS = 500
# Sides of a block to propose where the set one is too large for the dataset's pictures.
BLOCKS = (64, 48, 32, 24, 16)


def keep_standards(config: Config, built: KnowledgeBase, internal: Pairs, catalog: Catalog) -> None:
    """Measure the standards of pictures' scores, unless those that stand were for this fit.

    They stay with the fit: scores of rows that come later compare with those of earlier ones.

    Raises
    ------
    ConfigError
        The pictures are too few or too small to fit the NIQE model that the settings ask for.
    """
    path = config.folder / STANDARDS
    fit = {name: e["digest"] for name, e in built.manifest["files"].items() if "mapping/" in name}
    measured_for = digest(
        json.dumps(fit, sort_keys=True),
        json.dumps(config.selection.image.standards_identity(), sort_keys=True),
        str(config.run.seed),
    )
    if (read_json(path) or {}).get("measured_for") == measured_for:
        return
    standards = _measure(config, built, internal, catalog)
    write_whole(path, json.dumps({"measured_for": measured_for, **standards}, indent=1))


def _measure(
    config: Config, built: KnowledgeBase, internal: Pairs, catalog: Catalog
) -> dict[str, Any]:
    """Measure by what mean and deviation picture scores are standardised, on real pairs."""
    settings = config.selection
    kept = config.run.checked(catalog.counts()["image"]) if "image" in config.made else 0
    sample, targets = _sample(built, internal, config.run.seed, kept)
    images = np.asarray(internal.embeddings["image"][sample], np.float32)
    sampled = internal.table.take(pa.array(sample))
    numbers = {file.name: number for number, file in enumerate(catalog.dataset.files)}
    files = pa.array([numbers[name] for name in sampled["file"].to_pylist()], pa.int32())
    rows = pa.table({"file": files, "position": sampled["position"]})

    def pictures() -> Iterator[Image.Image]:
        return (picture for _, picture in decoded(catalog, rows, range(len(rows))))

    model = None
    if settings.image.niqe == "fitted":
        block = settings.image.niqe_block
        try:
            model = NiqeModel.fit(pictures(), block=block)
        except TooFewBlocks as error:
            smaller = (side for side in BLOCKS if side < block and _fits(pictures(), side))
            fitting = next(smaller, None)
            way = f"{fitting} would do" if fitting else "use niqe: published or off"
            raise ConfigError(f"selection.image.niqe_block: {error}; {way}") from None
    standards = Selector.fit_standards(settings, images, targets, pictures(), model)
    return {
        "standards": standards.to_dict(),
        "niqe_model": None if model is None else model.to_dict(),
        "pairs": sampled["id"].to_pylist(),
    }


def _sample(
    built: KnowledgeBase, internal: Pairs, seed: int, kept: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of some pairs, and what is predicted of their pictures by mappings that did not see them.

    Twice so many are kept for a run's check, if at most half of them, so that there are others to draw when
    settings change: it checks nothing by pairs that what it judges was measured by.

    What is predicted of pairs that a mapping was fitted on lies nearer to the truth, and less far
    apart, than it will for rows that lack their picture.
    """
    generator = np.random.default_rng(seed)
    held_out = built.held_out()
    rows = np.arange(len(internal))
    if held_out is not None:
        place = pc.index_in(pa.array(held_out.ids), value_set=internal.table["id"].combine_chunks())
        numbers = np.flatnonzero(place.is_valid())
        rows = place.drop_null().to_numpy()
    most = min(STANDARD_PAIRS, max(len(rows) - 2 * kept, len(rows) // 2))
    chosen = generator.choice(len(rows), min(len(rows), most), replace=False)
    chosen = chosen[np.argsort(rows[chosen])]
    if built.mapping.constant_["text"]:
        return rows[chosen], None
    if held_out is not None:
        return rows[chosen], normalise(held_out.predictions["text"][numbers[chosen]])
    texts = np.asarray(internal.embeddings["text"][rows[chosen]], np.float32)
    return rows[chosen], built.pseudo(texts, "text")


def _fits(pictures: Iterator[Image.Image], block: int) -> bool:
    try:
        NiqeModel.fit(pictures, block=block)
    except TooFewBlocks:
        return False
    return True
