"""Building the knowledge base: scan the datasets, embed their pairs, purify, index, measure.

What was embedded is kept beside the run by content, so that new rows cost no more than themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kb.knowledge_base import KnowledgeBase
from kb.mapping import NoCompletePairs
from kb.recipe import METHOD, Recipe
from kb.storage import DamagedKnowledgeBase, damaged_files, read_manifest
from pipeline.completion.workbench import Workbench
from pipeline.dataset.catalog import Catalog, digest
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.external import INTERNAL
from pipeline.knowledge.embedding import Progress, embedded_pairs, pair_ids, quiet
from pipeline.knowledge.standards import keep_standards
from pipeline.storage.files import read_json, write_whole

INPUTS = "kb-inputs.json"


def scan(bench: Workbench, progress: Progress = quiet) -> Catalog:
    """The catalog of the incomplete dataset."""
    return _scan(bench, INTERNAL, progress)


def _scan(bench: Workbench, source: str, progress: Progress) -> Catalog:
    if source in bench.catalogs:
        return bench.catalogs[source]
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(f"scan {source}", done, 0)

    found = Catalog.scan(bench.source(source), bench.config.folder / "catalog" / source, advance)
    progress(f"scan {source}", len(found), len(found))
    bench.catalogs[source] = found
    return found


def scan_externals(bench: Workbench, progress: Progress = quiet) -> dict[str, Catalog]:
    """The catalogs of the external datasets by name."""
    return {
        settings.name: _scan(bench, settings.name, progress) for settings in bench.config.external
    }


def build(bench: Workbench, catalog: Catalog, progress: Progress = quiet) -> bool:
    """Bring the knowledge base in the run's folder `kb/` up to what it is made of now.

    New pairs join it and pairs that are gone leave; it is built anew where
    `KnowledgeBase.update` finds that this will not do. Where nothing is new, damage is looked for by
    the sizes of files alone. Needs the run's lock.

    Parameters
    ----------
    bench
    catalog
        Of the incomplete dataset.
    progress
        Called with the name of a step, what is done of it, and the total (0: unknown).

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    kb.mapping.NoCompletePairs
        The dataset has no complete pair.
    DatasetError
        An id would stand for more than one pair.
    ConfigError
        The encoder gives what is no embedding, or pictures are too few or too small for the
        settings of `selection`.
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
        "selection": config.selection.image.standards_identity(),
        "seed": config.run.seed,
    }
    stamp = config.folder / INPUTS
    same = read_json(stamp) == json.loads(json.dumps(inputs))
    if same and _stands(bench.knowledge_base_folder):
        return False
    _check_ids({INTERNAL: catalog} | externals)
    stamp.unlink(missing_ok=True)
    bench.forget()
    internal = embedded_pairs(bench, INTERNAL, catalog, progress)
    external = [embedded_pairs(bench, name, found, progress) for name, found in externals.items()]
    progress("build", 0, 1)
    recipe = Recipe(config.knowledge_base, config.run.seed, bench.encoder.shared_space, encoder)
    built = KnowledgeBase.update(bench.knowledge_base_folder, internal, external, recipe)
    keep_standards(bench, built, internal, catalog)
    write_whole(stamp, json.dumps(inputs, indent=1))
    progress("build", 1, 1)
    bench.forget()
    return True


def _stands(folder: Path) -> bool:
    """Whether a knowledge base is there with all its files, each as large as it was written."""
    try:
        return not damaged_files(folder, read_manifest(folder), thorough=False)
    except DamagedKnowledgeBase:
        return False


def _check_ids(catalogs: Mapping[str, Catalog]) -> None:
    """Refuse ids that would stand for more than one pair.

    Raises
    ------
    DatasetError
        An id is that of another source's pair, with the source's name before it.
    """
    ids = {source: pair_ids(source, found.complete()) for source, found in catalogs.items()}
    together = pa.chunked_array([chunk for own in ids.values() for chunk in own.chunks])
    if pc.count_distinct(together).as_py() == len(together):
        return
    counts = pc.value_counts(together)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
    sources = [source for source, own in ids.items() if pc.index(own, twice).as_py() >= 0]
    raise DatasetError(
        f"external.name: pairs of {' and '.join(sources)} would have the same id {twice.as_py()!r};"
        " give the external dataset another name"
    )
