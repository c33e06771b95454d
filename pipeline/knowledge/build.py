"""Building the knowledge base: scan the datasets, embed their pairs, purify, index, measure.

What was embedded is kept beside the run by content, so that new rows cost no more than themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kb.device import release_gpu
from kb.knowledge_base import KnowledgeBase
from kb.mapping import NoCompletePairs
from kb.recipe import METHOD, Recipe
from kb.storage import DamagedKnowledgeBase, damaged_files, read_manifest
from pipeline.config.config import Config
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.overlooked import without_pairs
from pipeline.dataset.settings import INTERNAL
from pipeline.dataset.sources import Progress, Sources, quiet
from pipeline.knowledge.embedding import PairEmbeddings, pair_ids
from pipeline.knowledge.standards import keep_standards
from pipeline.knowledge.standing import StandingKnowledge
from pipeline.models.components import check_device
from pipeline.models.loaded import LoadedModels
from pipeline.storage.digests import digest
from pipeline.storage.files import read_json, write_whole
from pipeline.storage.warned import Warned

INPUTS = "kb-inputs.json"


def build(
    config: Config,
    sources: Sources,
    models: LoadedModels,
    embeddings: PairEmbeddings,
    knowledge: StandingKnowledge,
    progress: Progress = quiet,
) -> bool:
    """Bring the knowledge base in the run's folder `kb/` up to what it is made of now.

    New pairs join it and pairs that are gone leave; it is built anew where
    `KnowledgeBase.update` finds that this will not do. Where nothing is new, damage is looked for by
    the sizes of files alone. Needs the run's lock.

    Parameters
    ----------
    config, sources, models, embeddings
    knowledge
        Forgets what it has read, where another is built.
    progress

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    kb.mapping.NoCompletePairs
        The dataset has no complete pair.
    DatasetError
        An external dataset has no complete pair, or an id would stand for more than one.
    ConfigError
        The encoder gives what is no embedding, pictures are too few or too small for the settings
        of `selection`, or the config names a GPU that is not there.
    """
    check_device("knowledge_base.device", config.knowledge_base.device)
    catalog = sources.catalog(progress=progress)
    if not len(catalog.complete()):
        raise NoCompletePairs(
            "no complete pair to learn from: the dataset needs rows with both an image and a text"
            " (32 or more to be of use)"
        )
    catalogs = sources.catalogs(progress)
    externals = {name: found for name, found in catalogs.items() if name != INTERNAL}
    encoder = models.identity(models.encoder_component)
    inputs = {
        "internal": digest(catalog.content()),
        "external": {name: digest(found.content()) for name, found in externals.items()},
        "places": digest(*(f.name + f.version for c in catalogs.values() for f in c.dataset.files)),
        "encoder": encoder,
        "method": METHOD,
        "settings": config.knowledge_base.identity(),
        "selection": config.selection.image.standards_identity(),
        "seed": config.run.seed,
    }
    stamp = config.folder / INPUTS
    same = read_json(stamp) == json.loads(json.dumps(inputs))
    if same and _whole(knowledge.folder):
        return False
    _check_pairs(externals)
    _check_ids(catalogs)
    stamp.unlink(missing_ok=True)
    knowledge.forget()
    internal = embeddings.pairs(INTERNAL, progress)
    external = [embeddings.pairs(name, progress) for name in externals]
    progress("build", 0, 1)
    recipe = Recipe(config.knowledge_base, config.run.seed, models.encoder.shared_space, encoder)
    with Warned() as warned:
        built = KnowledgeBase.update(knowledge.folder, internal, external, recipe)
        keep_standards(config, built, internal, catalog)
    knowledge.keep_warnings(warned.told())
    write_whole(stamp, json.dumps(inputs, indent=1))
    progress("build", 1, 1)
    del built
    knowledge.forget()
    release_gpu()
    return True


def _whole(folder: Path) -> bool:
    """Whether a knowledge base is there with all its files, each as large as it was written."""
    try:
        return not damaged_files(folder, read_manifest(folder), thorough=False)
    except DamagedKnowledgeBase:
        return False


def _check_pairs(externals: Mapping[str, Catalog]) -> None:
    """Refuse an external dataset that has no pair: the fault is in its path or its columns.

    Raises
    ------
    DatasetError
    """
    for name, catalog in externals.items():
        why = without_pairs(name, catalog)
        if why is not None:
            raise DatasetError(f"{why}; mend it, or leave it out of the config")


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
