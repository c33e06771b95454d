"""The complete pairs of a dataset with their embeddings, which are kept by content.

Pictures are decoded as the encoder asks for them; what was embedded once is not read again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from kb.cache import EmbeddingCache
from kb.embeddings import MODALITIES, Modality, Subset
from kb.pairs import Pairs
from pipeline.completion.workbench import Workbench
from pipeline.dataset.catalog import Catalog, digest, encoded_images, stream
from pipeline.dataset.external import INTERNAL
from pipeline.dataset.images import UndecodableImage, decode

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


def quiet(step: str, done: int, total: int) -> None:
    """The progress of whoever does not watch."""


def embedded_pairs(
    bench: Workbench, source: str, catalog: Catalog, progress: Progress = quiet
) -> Pairs:
    """The complete rows of a dataset with their embeddings, in reading order.

    A picture or text that this encoder has seen before, in whatever file, is not encoded again.
    Rows whose picture can't be decoded any more are left out, with a warning.

    Raises
    ------
    ConfigError
        The encoder gives what is no embedding.
    """
    complete, details = catalog.complete(), catalog.details()
    items = {
        "image": lambda numbers: decoded(catalog, complete, numbers),
        "text": lambda numbers: ((n, details["captions"][n].as_py()) for n in numbers),
    }
    caches: dict[Modality, EmbeddingCache] = {}
    places: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        caches[modality] = _cache(bench, modality, bench.encoder.dimension(modality))
        places[modality] = caches[modality].encode(
            complete[modality].to_pylist(),
            items[modality],
            partial(bench.embed, modality=modality),
            progress=partial(progress, f"embed {source} {modality}s"),
        )
    held = (places["image"] >= 0) & (places["text"] >= 0)
    if not held.all():
        first = complete["id"][int(np.argmin(held))].as_py()
        logger.warning(
            "%s: %d pairs are left out, for their pictures can't be decoded any more (%r first)",
            source,
            len(held) - int(held.sum()),
            first,
        )
    table = _pair_table(bench, source, catalog, complete, details).filter(pa.array(held))
    return Pairs(table, {m: caches[m].rows(places[m][held]) for m in MODALITIES})


def held_embeddings(bench: Workbench, catalog: Catalog, modality: Modality) -> Subset:
    """The embeddings of a dataset's complete rows as far as they are kept; nothing is encoded."""
    cache = _cache(bench, modality)
    places = cache.find(catalog.complete()[modality].to_pylist())
    return cache.rows(places[places >= 0])


def decoded(
    catalog: Catalog, rows: pa.Table, numbers: Sequence[int]
) -> Iterator[tuple[int, Image.Image]]:
    """The pictures of rows of a catalog by their (ascending) numbers, one at a time.

    Left out are those that can't be decoded any more.
    """
    limit, left = catalog.dataset.settings.max_pixels, iter(numbers)
    for batch in stream(catalog.dataset, rows.take(pa.array(numbers, pa.int64()))):
        for data, number in zip(encoded_images(batch), left, strict=False):
            try:
                picture = decode(data.as_py() or b"", limit)
            except UndecodableImage:
                continue
            yield number, picture


def _cache(bench: Workbench, modality: Modality, dimension: int | None = None) -> EmbeddingCache:
    identity = bench.identity(bench.config.encoder_part())
    fingerprint = digest(json.dumps(identity, sort_keys=True))
    return EmbeddingCache(bench.embeddings_folder, fingerprint, modality, dimension)


def pair_ids(source: str, complete: pa.Table) -> pa.ChunkedArray:
    """What complete rows are called as pairs: an external one has its source before its id."""
    prefix = "" if source == INTERNAL else f"{source}/"
    return pc.binary_join_element_wise(prefix, complete["id"], "")


def _pair_table(
    bench: Workbench, source: str, catalog: Catalog, complete: pa.Table, details: pa.Table
) -> pa.Table:
    """What the knowledge base keeps of each pair besides its embeddings."""
    licence = next((e.licence for e in bench.config.external if e.name == source), None)
    names = pa.array([file.name for file in catalog.dataset.files])
    own = details["licence"]
    return pa.table(
        {
            "id": pair_ids(source, complete),
            "source": pa.repeat(source, len(complete)),
            "licence": own if licence is None else pc.fill_null(own, licence),
            "text": details["captions"],
            "file": names.take(complete["file"].combine_chunks()),
            "position": complete["position"],
        }
    )
