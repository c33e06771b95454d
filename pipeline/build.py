"""Building the knowledge base: scan the datasets, embed their pairs, purify, index, measure.

What was embedded is kept a file each beside the run, so that a new file costs its own rows only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kb.embeddings import (
    MODALITIES,
    EmbeddingWriter,
    Modality,
    Stacked,
    open_embeddings,
)
from kb.knowledge_base import KnowledgeBase, Pairs
from pipeline.catalog import Catalog, digest, fetch
from pipeline.images import decode
from pipeline.ledger import read_json, write_whole
from pipeline.workbench import INTERNAL, STANDARDS, Workbench
from selection.niqe import NiqeModel
from selection.scoring import Selector

logger = logging.getLogger(__name__)

EMBED_ROWS = 256
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

    return Catalog.scan(bench.source(source), bench.config.folder / "catalog" / source, advance)


def scan_externals(bench: Workbench, progress: Progress = quiet) -> dict[str, Catalog]:
    """The catalogs of the external datasets by name."""
    return {
        settings.name: _scan(bench, settings.name, progress) for settings in bench.config.external
    }


def build(
    bench: Workbench, catalog: Catalog, progress: Progress = quiet, anew: bool = False
) -> bool:
    """Build the knowledge base in the run's folder `kb/` if what it is made of has changed.

    Parameters
    ----------
    bench
    catalog
        Of the incomplete dataset.
    progress
        Called with the name of a step, what is done of it, and the total (0: unknown).
    anew
        Build in any case.

    Returns
    -------
    bool
        Whether it was built.

    Raises
    ------
    kb.mapping.NoCompletePairs
        The dataset has no complete pair.
    """
    config = bench.config
    externals = scan_externals(bench, progress)
    encoder = bench.identity(config.encoder_part())
    inputs = {
        "internal": digest(catalog.content()),
        "external": {name: digest(found.content()) for name, found in externals.items()},
        "places": digest(
            *(f.name + f.version for c in (catalog, *externals.values()) for f in c.dataset.files)
        ),
        "encoder": encoder,
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
    built = KnowledgeBase.build(
        bench.knowledge_base_folder,
        internal,
        external,
        config.knowledge_base,
        config.run.seed,
        shared_space=bench.encoder.shared_space,
        encoder=encoder,
    )
    _measure_standards(bench, built, internal, catalog)
    write_whole(stamp, json.dumps(inputs, indent=1))
    progress("build", 1, 1)
    bench.forget()
    return True


def embedded_pairs(
    bench: Workbench, source: str, catalog: Catalog, progress: Progress = quiet
) -> Pairs:
    """The complete rows of a dataset with their embeddings, in reading order.

    What was embedded before is read again; nothing is loaded then.
    """
    encoder = bench.identity(bench.config.encoder_part())
    complete = catalog.complete()
    done, total = 0, len(complete)
    tables: list[pa.Table] = []
    embeddings: dict[Modality, list[np.ndarray]] = {m: [] for m in MODALITIES}
    numbers = complete["file"].to_numpy()
    for number in np.unique(numbers).tolist():
        rows = complete.filter(pa.array(numbers == number))
        stem = _embedding_stem(bench, source, catalog, number, rows, encoder)
        table_path = stem.with_suffix(".arrow")
        if not table_path.exists():
            for embedded in _embed(bench, source, catalog, rows, stem):
                progress(f"embed {source}", done + embedded, total)
        with pa.memory_map(str(table_path)) as mapped:
            tables.append(pa.ipc.open_file(mapped).read_all())
        for modality in MODALITIES:
            embeddings[modality].append(open_embeddings(stem.with_suffix(f".{modality}.npy")))
        done += len(rows)
        progress(f"embed {source}", done, total)
    if not tables:
        width = {m: bench.encoder.dimension(m) for m in MODALITIES}
        empty = _PAIR_SCHEMA.empty_table()
        return Pairs(empty, {m: np.empty((0, width[m]), np.float16) for m in MODALITIES})
    return Pairs(pa.concat_tables(tables), {m: Stacked(embeddings[m]) for m in MODALITIES})


_PAIR_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("text", pa.list_(pa.string())),
        ("file", pa.string()),
        ("position", pa.int64()),
    ]
)


def _embedding_stem(
    bench: Workbench,
    source: str,
    catalog: Catalog,
    number: int,
    rows: pa.Table,
    encoder: dict[str, Any],
) -> Path:
    """Where the embeddings of a file's complete rows are kept: by content, so never stale."""
    file = catalog.dataset.files[number]
    content = [
        "\0".join(str(value) for value in row)
        for row in zip(
            *(rows[name].to_pylist() for name in ("id", "position", "image", "text")),
            strict=True,
        )
    ]
    name = digest(json.dumps(encoder, sort_keys=True), file.name, *content)
    return bench.config.folder / "embeddings" / source / name


def _embed(
    bench: Workbench,
    source: str,
    catalog: Catalog,
    rows: pa.Table,
    stem: Path,
) -> Iterator[int]:
    """Embed a file's complete rows, and tell how many are done as it goes."""
    dataset = catalog.dataset
    licence = next((e.licence for e in bench.config.external if e.name == source), None)
    prefix = "" if source == INTERNAL else f"{source}/"
    stem.parent.mkdir(parents=True, exist_ok=True)
    tables = []
    with (
        EmbeddingWriter(stem.with_suffix(".image.npy"), bench.encoder.dimension("image")) as images,
        EmbeddingWriter(stem.with_suffix(".text.npy"), bench.encoder.dimension("text")) as texts,
    ):
        for start in range(0, len(rows), EMBED_ROWS):
            part = rows.slice(start, EMBED_ROWS)
            places = zip(part["file"].to_pylist(), part["position"].to_pylist(), strict=True)
            found = fetch(dataset, places)
            pictures = [
                decode(data, dataset.settings.max_pixels)
                for data in found["image"].combine_chunks().field("bytes").to_pylist()
            ]
            captions = found["text"].to_pylist()
            images.append(bench.embed(pictures, "image"))
            texts.append(bench.embed(captions, "text"))
            own = _licences(found)
            tables.append(
                pa.table(
                    {
                        "id": [prefix + row_id for row_id in part["id"].to_pylist()],
                        "source": [source] * len(part),
                        "licence": own or [licence] * len(part),
                        "text": captions,
                        "file": [dataset.files[f].name for f in part["file"].to_pylist()],
                        "position": part["position"],
                    },
                    schema=_PAIR_SCHEMA,
                )
            )
            yield start + len(part)
    scratch = stem.with_suffix(".arrow.tmp")
    table = pa.concat_tables(tables)
    with (
        pa.OSFile(str(scratch), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    scratch.replace(stem.with_suffix(".arrow"))


def _licences(found: pa.Table) -> list[str | None] | None:
    """The licence of each row, where the dataset has such a column."""
    if "extra" not in found.column_names:
        return None
    for row in (rows := found["extra"].to_pylist()):
        for name in ("licence", "license"):
            if name in row:
                return [None if r[name] is None else str(r[name]) for r in rows]
    return None


def _measure_standards(
    bench: Workbench, built: KnowledgeBase, internal: Pairs, catalog: Catalog
) -> None:
    """Measure by what mean and deviation picture scores are standardised, on real pairs."""
    settings = bench.config.selection
    generator = np.random.default_rng(bench.config.run.seed)
    sample = np.sort(
        generator.choice(len(internal), min(len(internal), STANDARD_PAIRS), replace=False)
    )
    images = np.asarray(internal.embeddings["image"][sample], np.float32)
    texts = np.asarray(internal.embeddings["text"][sample], np.float32)
    targets = None if built.mapping.constant_["text"] else built.pseudo(texts, "text")
    complete = catalog.complete().take(pa.array(sample))
    places = zip(complete["file"].to_pylist(), complete["position"].to_pylist(), strict=True)
    pictures = [
        decode(data, bench.config.dataset.max_pixels)
        for data in fetch(catalog.dataset, places)["image"]
        .combine_chunks()
        .field("bytes")
        .to_pylist()
    ]
    model = None
    if settings.image.niqe == "fitted":
        model = NiqeModel.fit(pictures, block=settings.image.niqe_block)
    standards = Selector.fit_standards(settings, images, targets, pictures, model)
    write_whole(
        bench.config.folder / STANDARDS,
        json.dumps(
            {
                "standards": standards.to_dict(),
                "niqe_model": None if model is None else model.to_dict(),
            },
            indent=1,
        ),
    )
