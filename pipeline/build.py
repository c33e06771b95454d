"""Building the knowledge base: scan the datasets, embed their pairs, purify, index, measure.

What was embedded is kept beside the run by content, so that new rows cost no more than themselves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb.cache import EmbeddingCache
from kb.embeddings import MODALITIES, Modality, Rows
from kb.knowledge_base import KnowledgeBase, Pairs
from kb.mapping import NoCompletePairs
from kb.recipe import METHOD, Recipe
from pipeline.catalog import Catalog, digest, fetch
from pipeline.external import INTERNAL
from pipeline.files import read_json, write_whole
from pipeline.images import decode
from pipeline.workbench import STANDARDS, Workbench
from selection.niqe import NiqeModel
from selection.scoring import Selector

logger = logging.getLogger(__name__)

EMBED_ROWS = 1024
STANDARD_PAIRS = 500
INPUTS = "kb-inputs.json"

Progress = Callable[[str, int, int], None]


def quiet(step: str, done: int, total: int) -> None:
    """The progress of whoever does not watch."""


def scan(bench: Workbench, progress: Progress = quiet) -> Catalog:
    """The catalog of the incomplete dataset."""
    return _scan(bench, INTERNAL, progress)


def _scan(bench: Workbench, source: str, progress: Progress) -> Catalog:
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(f"scan {source}", done, 0)

    found = Catalog.scan(bench.source(source), bench.config.folder / "catalog" / source, advance)
    progress(f"scan {source}", len(found), len(found))
    return found


def scan_externals(bench: Workbench, progress: Progress = quiet) -> dict[str, Catalog]:
    """The catalogs of the external datasets by name."""
    return {
        settings.name: _scan(bench, settings.name, progress) for settings in bench.config.external
    }


def build(
    bench: Workbench, catalog: Catalog, progress: Progress = quiet, anew: bool = False
) -> bool:
    """Bring the knowledge base in the run's folder `kb/` up to what it is made of now.

    New pairs join it and pairs that are gone leave; it is built anew where
    `KnowledgeBase.update` finds that this will not do.

    Parameters
    ----------
    bench
    catalog
        Of the incomplete dataset.
    progress
        Called with the name of a step, what is done of it, and the total (0: unknown).
    anew
        Build from nothing in any case.

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    kb.mapping.NoCompletePairs
        The dataset has no complete pair.
    """
    config = bench.config
    if not len(catalog.complete()):
        raise NoCompletePairs(
            "no complete pair to learn from: the dataset needs rows with both an image and a text"
            " (32 or more to be of use)"
        )
    externals = scan_externals(bench, progress)
    encoder = bench.identity(config.encoder_part())
    inputs = {
        "internal": digest(catalog.content()),
        "external": {name: digest(found.content()) for name, found in externals.items()},
        "places": digest(
            *(f.name + f.version for c in (catalog, *externals.values()) for f in c.dataset.files)
        ),
        "encoder": encoder,
        "method": METHOD,
        "settings": config.knowledge_base.identity(),
        "selection": config.selection.identity(),
        "seed": config.run.seed,
    }
    stamp = config.folder / INPUTS
    standing = (bench.knowledge_base_folder / "manifest.json").is_file()
    if standing and not anew and read_json(stamp) == json.loads(json.dumps(inputs)):
        return False
    stamp.unlink(missing_ok=True)
    bench.forget()
    internal = embedded_pairs(bench, INTERNAL, catalog, progress)
    external = [embedded_pairs(bench, name, found, progress) for name, found in externals.items()]
    progress("build", 0, 1)
    recipe = Recipe(config.knowledge_base, config.run.seed, bench.encoder.shared_space, encoder)
    make = KnowledgeBase.build if anew else KnowledgeBase.update
    built = make(bench.knowledge_base_folder, internal, external, recipe)
    _keep_standards(bench, built, internal, catalog)
    write_whole(stamp, json.dumps(inputs, indent=1))
    progress("build", 1, 1)
    bench.forget()
    return True


def embedded_pairs(
    bench: Workbench, source: str, catalog: Catalog, progress: Progress = quiet
) -> Pairs:
    """The complete rows of a dataset with their embeddings, in reading order.

    A picture or text that this encoder has seen before, in whatever file, is not encoded again.
    """
    complete = catalog.complete()
    embeddings: dict[Modality, Rows] = {}
    for modality in MODALITIES:
        cache = EmbeddingCache(
            bench.embeddings_folder,
            digest(json.dumps(bench.identity(bench.config.encoder_part()), sort_keys=True)),
            modality,
            bench.encoder.dimension(modality),
        )
        keys = complete[modality].to_pylist()
        new: dict[str, int] = {}
        for row in np.flatnonzero(cache.find(keys) < 0).tolist():
            # The first of equal ones, so that the rows ascend and are read in one pass.
            new.setdefault(keys[row], row)
        for start in range(0, len(new), EMBED_ROWS):
            part = dict(list(new.items())[start : start + EMBED_ROWS])
            rows = complete.take(pa.array(list(part.values())))
            cache.add(list(part), bench.embed(_items(catalog, rows, modality), modality))
            progress(f"embed {source} {modality}s", start + len(part), len(new))
        embeddings[modality] = cache.rows(cache.find(keys))
    return Pairs(_pair_table(bench, source, catalog, complete), embeddings)


def _items(catalog: Catalog, rows: pa.Table, modality: Modality) -> Sequence[Any]:
    """Decoded images or lists of captions of some rows."""
    places = zip(rows["file"].to_pylist(), rows["position"].to_pylist(), strict=True)
    found = fetch(catalog.dataset, places)
    if modality == "text":
        return found["text"].to_pylist()
    limit = catalog.dataset.settings.max_pixels
    return [
        decode(data, limit) for data in found["image"].combine_chunks().field("bytes").to_pylist()
    ]


def _pair_table(bench: Workbench, source: str, catalog: Catalog, complete: pa.Table) -> pa.Table:
    """What the knowledge base keeps of each pair besides its embeddings."""
    licence = next((e.licence for e in bench.config.external if e.name == source), None)
    prefix = "" if source == INTERNAL else f"{source}/"
    details = catalog.details()
    names = pa.array([file.name for file in catalog.dataset.files])
    own = details["licence"]
    return pa.table(
        {
            "id": pc.binary_join_element_wise(prefix, complete["id"], ""),
            "source": pa.repeat(source, len(complete)),
            "licence": own if licence is None else pc.fill_null(own, licence),
            "text": details["captions"],
            "file": names.take(complete["file"].combine_chunks()),
            "position": complete["position"],
        }
    )


def _keep_standards(
    bench: Workbench, built: KnowledgeBase, internal: Pairs, catalog: Catalog
) -> None:
    """Measure the standards of pictures' scores, unless those that stand were for this fit.

    They stay with the fit: scores of rows that come later compare with those of earlier ones.
    """
    path = bench.config.folder / STANDARDS
    fit = {name: e["digest"] for name, e in built.manifest["files"].items() if "mapping/" in name}
    measured_for = digest(
        json.dumps(fit, sort_keys=True),
        json.dumps(bench.config.selection.identity(), sort_keys=True),
        str(bench.config.run.seed),
    )
    if (read_json(path) or {}).get("measured_for") == measured_for:
        return
    standards = _measure_standards(bench, built, internal, catalog)
    write_whole(path, json.dumps({"measured_for": measured_for, **standards}, indent=1))


def _measure_standards(
    bench: Workbench, built: KnowledgeBase, internal: Pairs, catalog: Catalog
) -> dict[str, Any]:
    """Measure by what mean and deviation picture scores are standardised, on real pairs."""
    settings = bench.config.selection
    generator = np.random.default_rng(bench.config.run.seed)
    sample = np.sort(
        generator.choice(len(internal), min(len(internal), STANDARD_PAIRS), replace=False)
    )
    images = np.asarray(internal.embeddings["image"][sample], np.float32)
    texts = np.asarray(internal.embeddings["text"][sample], np.float32)
    targets = None if built.mapping.constant_["text"] else built.pseudo(texts, "text")
    pictures = _items(catalog, catalog.complete().take(pa.array(sample)), "image")
    model = None
    if settings.image.niqe == "fitted":
        model = NiqeModel.fit(pictures, block=settings.image.niqe_block)
    standards = Selector.fit_standards(settings, images, targets, pictures, model)
    return {
        "standards": standards.to_dict(),
        "niqe_model": None if model is None else model.to_dict(),
    }
