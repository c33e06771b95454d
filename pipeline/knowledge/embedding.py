"""The complete pairs of a dataset with their embeddings, which are kept by content.

Pictures are decoded as the encoder asks for them; what was embedded once is not read again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from kb.cache import EmbeddingCache
from kb.embeddings import MODALITIES, Modality, Subset, take
from kb.encoders.ahead import ahead, usable_cores
from kb.pairs import Pairs
from pipeline.dataset.catalog import Catalog, encoded_images, stream
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.dataset.settings import INTERNAL
from pipeline.dataset.sources import Progress, Sources, quiet
from pipeline.models.item_errors import comes_of_an_item
from pipeline.models.loaded import AHEAD, LoadedModels
from pipeline.storage.digests import digest

logger = logging.getLogger(__name__)


class PairEmbeddings:
    """The embeddings of the sources' complete rows, kept in a folder by content.

    Parameters
    ----------
    folder : Path
        Runs may share it.
    sources : Sources
    models : LoadedModels
    """

    def __init__(self, folder: Path, sources: Sources, models: LoadedModels) -> None:
        self.folder = folder
        self._sources = sources
        self._models = models

    def pairs(
        self, source: str, progress: Progress = quiet, only: Collection[str] | None = None
    ) -> Pairs:
        """The complete rows of a source with their embeddings, in reading order.

        A picture or text that this encoder has seen before, in whatever file, is not encoded
        again. Rows whose picture can't be decoded any more, or with a half that the encoder can't
        take, are left out, with a warning.

        Parameters
        ----------
        source : str
        progress : Progress
        only : collection of str, optional
            Ids of the rows that are asked for; by default all.

        Raises
        ------
        ConfigError
            The encoder gives what is no embedding.
        """
        catalog = self._sources.catalog(source, progress)
        complete, details = catalog.complete(), catalog.details()
        digests = {modality: catalog.digests(modality) for modality in MODALITIES}
        if only is not None:
            asked = np.array([row_id in only for row_id in complete["id"].to_pylist()], bool)
            complete, details = (one.filter(pa.array(asked)) for one in (complete, details))
            digests = {m: list(compress(found, asked)) for m, found in digests.items()}
        items: dict[Modality, Callable[[Sequence[int]], Iterable[tuple[int, Any]]]] = {
            "image": partial(self._prepared, catalog, complete),
            "text": lambda numbers: ((n, details["captions"][n].as_py()) for n in numbers),
        }
        caches: dict[Modality, EmbeddingCache] = {}
        places: dict[Modality, np.ndarray] = {}
        for modality in MODALITIES:
            caches[modality] = self._growing(modality)
            places[modality] = caches[modality].encode(
                digests[modality],
                items[modality],
                partial(self._models.embed, modality=modality),
                progress=partial(progress, f"embed {source} {modality}s"),
                of_an_item=partial(comes_of_an_item, self._models, modality),
            )
        held = (places["image"] >= 0) & (places["text"] >= 0)
        if not held.all():
            first = complete["id"][int(np.argmin(held))].as_py()
            logger.warning(
                "%s: %d pairs are left out, for a half of them can't be decoded any more, or not be"
                " embedded (%r first)",
                source,
                len(held) - int(held.sum()),
                first,
            )
        table = _pair_table(
            source, catalog, complete, details, digests["image"], self._sources.licence(source)
        ).filter(pa.array(held))
        return Pairs(table, {m: caches[m].rows(places[m][held]) for m in MODALITIES})

    def _prepared(
        self, catalog: Catalog, complete: pa.Table, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Pictures as the encoder takes them, decoded and prepared ahead."""
        models = self._models
        return decoded(
            catalog, complete, numbers, models.prepare, models.jpeg_side, models.pictures_ahead
        )

    def of_halves(
        self, modality: Modality, contents: Sequence[bytes] | Sequence[Sequence[str]], limit: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of pictures or texts that are of no source, kept by content as well.

        Those that can't be decoded, or that the encoder can't take, are left out, with a warning.

        Parameters
        ----------
        modality : Modality
        contents : n encoded pictures, or n rows of captions
        limit : int
            Most pixels of a picture.

        Returns
        -------
        float32 [n, d], unit rows, zeros where there is none; and bool [n], whether there is one

        Raises
        ------
        ConfigError
            The encoder gives what is no embedding.
        """

        def item(number: int) -> tuple[int, Any]:
            one = contents[number]
            if not isinstance(one, bytes):
                return number, list(one)
            try:
                return number, models.prepare(decode(one, limit, models.jpeg_side))
            except UndecodableImage:
                return number, None

        def items(numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
            found = ahead(item, numbers, usable_cores(), models.pictures_ahead)
            return ((number, one) for number, one in found if one is not None)

        models = self._models
        cache = self._growing(modality)
        keys = [digest(one) if isinstance(one, bytes) else digest(*one) for one in contents]
        places = cache.encode(
            keys,
            items,
            partial(self._models.embed, modality=modality),
            of_an_item=partial(comes_of_an_item, self._models, modality),
        )
        held = places >= 0
        if not held.all():
            logger.warning(
                "%d of %d %ss are left out: they can't be decoded, or not be embedded",
                len(held) - int(held.sum()),
                len(held),
                modality,
            )
        found = np.zeros((len(places), cache.dimension), np.float32)
        found[held] = take(cache.rows(places[held]), np.arange(int(held.sum())))
        return found, held

    def held(self, source: str, modality: Modality) -> Subset:
        """The embeddings of a source's complete rows as far as they are kept; nothing is encoded."""
        cache = self._cache(modality)
        places = cache.find(self._sources.catalog(source).digests(modality))
        return cache.rows(places[places >= 0])

    def _growing(self, modality: Modality) -> EmbeddingCache:
        """The store to add to; the encoder is loaded only where there is none yet."""
        cache = self._cache(modality)
        if cache.dimension:
            return cache
        return self._cache(modality, self._models.encoder.dimension(modality))

    def _cache(self, modality: Modality, dimension: int | None = None) -> EmbeddingCache:
        identity = self._models.identity(self._models.encoder_component)
        fingerprint = digest(json.dumps(identity, sort_keys=True))
        return EmbeddingCache(self.folder, fingerprint, modality, dimension)


def decoded(
    catalog: Catalog,
    rows: pa.Table,
    numbers: Sequence[int],
    finish: Callable[[Image.Image], Any] = lambda picture: picture,
    least_side: int | None = None,
    held: int = AHEAD,
) -> Iterator[tuple[int, Any]]:
    """The pictures of rows of a catalog by their (ascending) numbers, decoded ahead on all cores.

    Left out are those that can't be decoded any more.

    Parameters
    ----------
    catalog : Catalog
    rows : pyarrow.Table
        Columns `file` and `position`.
    numbers : sequence of int
    finish : callable, optional
        What is made of a picture where it is decoded, in another thread; by default nothing, and
        `held` of them lie in memory as large as they are.
    least_side : int, optional
        See `pipeline.dataset.decoding.decode`.
    held : int
        Pictures that are decoded ahead, at most.
    """
    limit = catalog.dataset.settings.max_pixels

    def encoded() -> Iterator[tuple[int, bytes]]:
        left = iter(numbers)
        for batch in stream(catalog.dataset, rows.take(pa.array(numbers, pa.int64()))):
            for data, number in zip(encoded_images(batch), left, strict=False):
                yield number, data.as_py() or b""

    def one(asked: tuple[int, bytes]) -> tuple[int, Any]:
        number, data = asked
        try:
            picture = decode(data, limit, least_side)
        except UndecodableImage:
            return number, None
        return number, finish(picture)

    for number, picture in ahead(one, encoded(), usable_cores(), held):
        if picture is not None:
            yield number, picture


def pair_ids(source: str, complete: pa.Table) -> pa.ChunkedArray:
    """What complete rows are called as pairs: an external one has its source before its id."""
    prefix = "" if source == INTERNAL else f"{source}/"
    return pc.binary_join_element_wise(prefix, complete["id"], "")


def _pair_table(
    source: str,
    catalog: Catalog,
    complete: pa.Table,
    details: pa.Table,
    pictures: list[str],
    licence: str | None,
) -> pa.Table:
    """What the knowledge base keeps of each pair besides its embeddings."""
    names = pa.array([file.name for file in catalog.dataset.files])
    own = details["licence"]
    return pa.table(
        {
            "id": pair_ids(source, complete),
            "source": pa.repeat(source, len(complete)),
            "licence": own if licence is None else pc.fill_null(own, licence),
            "text": details["captions"],
            "picture": pictures,
            "file": names.take(complete["file"].combine_chunks()),
            "position": complete["position"],
        }
    )
