"""How long a run would take: each model timed on a handful of the rows that it would do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from generators.base import Generated
from generators.batching import MOST_ON_CPU
from generators.device import resolve_device
from generators.pictures import held
from generators.usage import Usage
from kb.embeddings import MODALITIES, Modality, opposite
from kb.retrieval import Hit
from pipeline.completion.block import Block
from pipeline.completion.row import Grounds
from pipeline.dataset.catalog import encoded_images, fetch
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.dataset.settings import INTERNAL
from pipeline.job import Job
from pipeline.knowledge.standing import Pair
from pipeline.ledger.ledger import DIGESTS, Entry
from pipeline.models.item_errors import embed_each
from pipeline.storage.digests import in_hex
from pipeline.storage.errors import ConfigError
from selection.niqe import niqe

# Timed after a first group that warms the model up; the fastest and the slowest give the range.
GROUPS = 3
ENOUGH_SECONDS = 120.0
ENCODED = 32


def measure(
    job: Job,
    pending: Mapping[str, int],
    external: Mapping[str, int | None],
    stops: Mapping[Modality, bool],
    used: dict[Modality, Usage] | None = None,
) -> dict[str, Any]:
    """Time the encoder and the generators on rows of the dataset.

    A group of rows fills the generator's batch. What is asked for them is what a run asks, but for
    the examples, which are other pairs of the dataset: as near as can be had before there is a
    knowledge base.

    Parameters
    ----------
    job
        Its models are on this machine.
    pending
        Rows to do by missing half.
    external
        Complete pairs of the external datasets; those that were not read (None) are left out.
    stops
        By missing half, whether rows end where one more candidate doesn't pay.
    used
        Takes what the generators' servers counted meanwhile, by missing half.

    Returns
    -------
    dict
        `rows` (timed, by missing half), `seconds_a_row` (by missing half, [least, most]),
        `seconds_an_embedding` (by modality), `loading` (seconds, all models together), and
        `seconds` (of the whole run, [least, most]). What is left out: fitting the knowledge base,
        further attempts for rows without a valid candidate, and the report.

    Raises
    ------
    ConfigError
        A generator gave no candidate at all: the time of its errors says nothing.
    """
    models, generation = job.models, job.config.generation
    judging, sizes = 0.0, list[int]()
    with _Loading() as loading:
        models.encoder  # noqa: B018 - loads it
    each = {modality: _encoding(job, modality) for modality in MODALITIES}
    a_row: dict[Modality, list[float]] = {}
    timed: dict[Modality, int] = {}
    for missing in MODALITIES:
        if pending[missing]:
            job.progress(f"time {missing}s", 0, GROUPS + 1)
            with loading:
                models.generator(missing)
            timed[missing], a_row[missing], answers = _generating(job, missing)
            if used is not None and (counted := models.newly_used()) is not None:
                used[missing] = counted[1]
            if missing == "image":
                judging, sizes = _judging(job, answers)
    models.close_generator()
    pairs = job.catalog.counts()["complete"] + sum(count or 0 for count in external.values())
    embedding = pairs * sum(each.values())
    least = most = loading.seconds + embedding
    for missing, (fast, slow) in a_row.items():
        candidate = each[missing] + (judging if missing == "image" else 0.0)
        fewest = generation.least if stops[missing] else generation.most
        fast *= fewest / generation.least
        judged = each[opposite(missing)] + fewest * candidate
        # Rows are embedded and judged while the generator works, at best: on a processor of its own.
        beside = max(fast, judged) if _on_gpu(job, missing) else fast + judged
        least += pending[missing] * beside
        # Rows may be looked at again, all of them at most.
        again = job.config.drawn_again(missing)
        judged += (generation.most - fewest + again) * candidate
        most += pending[missing] * (slow * (1 + again / generation.most) + judged)
    return {
        "rows": timed,
        "seconds_a_row": a_row,
        "seconds_an_embedding": each,
        "bytes_an_image": float(np.mean(sizes)) if sizes else None,
        "loading": loading.seconds,
        "seconds": [least, most],
    }


class _Loading:
    """Adds up the time of its blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> _Loading:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._started


def _encoding(job: Job, modality: Modality) -> float:
    """Seconds that an item takes to embed."""
    rows = _some(job, job.catalog.has(modality), ENCODED)
    if not len(rows):
        return 0.0
    items = [item for item in _items(job, _fetch(job, rows), modality) if item is not None]
    # Once without the clock, to warm up and to know those that the encoder can't take.
    _, faults = embed_each(job.models, items, modality)
    items = [item for number, item in enumerate(items) if number not in faults]
    if not items:
        return 0.0
    started = time.perf_counter()
    job.models.embed(items, modality)
    return (time.perf_counter() - started) / len(items)


def _on_gpu(job: Job, missing: Modality) -> bool:
    """Whether a half's generator leaves the processor to others: on a GPU, or at a server."""
    settings = job.config.generator_component(missing).settings
    if not settings.models():
        return True
    return resolve_device(getattr(settings, "device", "cpu")).type != "cpu"


def _judging(job: Job, answers: Sequence[Generated]) -> tuple[float, list[int]]:
    """Seconds that a picture takes to be written, read back and judged, and the bytes of each."""
    format, scoring = job.config.generation.image_format, job.config.selection.image
    images = [one.image for answer in answers for one in answer.candidates if one.image is not None]
    if not images:
        return 0.0, []
    started = time.perf_counter()
    seen = [format.written(image) for image in images]
    if scoring.uses_niqe:
        niqe([image for image, _ in seen])
    seconds = (time.perf_counter() - started) / len(images)
    pairs = zip(images, seen, strict=True)
    return seconds, [len(data or format.encode(image)) for image, (_, data) in pairs]


def _generating(job: Job, missing: Modality) -> tuple[int, list[float], list[Generated]]:
    """Rows that were timed, the seconds a row in the fastest and the slowest group, the last answers.

    A row is asked for the candidates of its first round; the slowest is as if it were asked for all.

    Groups are timed until the time for it is up, one at least: a model that takes minutes a row, as a
    large one does on a CPU, tells enough by a few.
    """
    config = job.config
    settings = config.generator_component(missing).settings
    # What a generator has under way at once, on this machine or at a server.
    batch = getattr(settings, "batch_size", getattr(settings, "concurrency", 1))
    batch = MOST_ON_CPU if batch == "auto" else batch
    size = max(1, -(-batch // config.generation.least))
    begun = time.perf_counter()
    found = _some(job, pc.equal(job.catalog.table["missing"], missing), size * (GROUPS + 1))
    seconds = []
    for group in range(GROUPS + 1):
        # A few rows go round: with other seeds nothing, but the time stays the same.
        part = found.take(pa.array([(group * size + i) % len(found) for i in range(size)]))
        block = _block(job, missing, part)
        started = time.perf_counter()
        answers = block.generate()
        seconds.append((time.perf_counter() - started) / size)
        if not any(answer.candidates for answer in answers):
            why = next((answer.error for answer in answers if answer.error), "no rows to ask for")
            raise ConfigError(f"{block.component.section}: gave no candidate to time: {why}")
        job.progress(f"time {missing}s", group + 1, GROUPS + 1)
        if group and time.perf_counter() - begun > ENOUGH_SECONDS:
            break
    most = config.generation.most / config.generation.least
    return size * (len(seconds) - 1), [min(seconds[1:]), most * max(seconds[1:])], answers


def _block(job: Job, missing: Modality, rows: pa.Table) -> Block:
    """Rows for a generator, grounded in complete pairs of the dataset."""
    observed = opposite(missing)
    names = ("id", "content", "extra", "missing")
    digests = {name: in_hex(rows[name]) for name in DIGESTS}
    columns = (digests.get(name) or rows[name].to_pylist() for name in names)
    entries = [
        Entry(row_id, content, extra, "", half, 1)
        for row_id, content, extra, half in zip(*columns, strict=True)
    ]
    cells = _fetch(job, rows)[observed].to_pylist()
    block = Block(
        job.config, job.models, job.knowledge, missing, entries, cells, [None] * len(entries)
    )
    if not any(block.grounded):
        return block
    shown = job.config.knowledge_base.retrieval.examples
    pairs = _some(job, pc.is_null(job.catalog.table["missing"]), len(entries) + shown - 1)
    fetched = _fetch(job, pairs)
    captions, files = fetched["text"].to_pylist(), encoded_images(fetched).to_pylist()
    limit, side = job.config.dataset.max_pixels, block.needs.side
    stand_ins = [
        Pair(place, f"pair {place}", INTERNAL, None, tuple(text), held(image, side), data)
        for place, (text, data) in enumerate(zip(captions, files, strict=True))
        if text and (image := _decoded(data, limit, side)) is not None
    ]
    shown = min(shown, len(stand_ins))
    for number, row in enumerate(block.rows):
        row.examples = [
            Grounds(pair, pair.captions[0], Hit(pair.id, pair.row, 0.0, 0.0, 0.0), side)
            for pair in (stand_ins[(number + i) % len(stand_ins)] for i in range(shown))
        ]
    return block


def _some(job: Job, mask: pa.ChunkedArray, count: int) -> pa.Table:
    """Some rows of the catalog, spread over it."""
    rows = np.flatnonzero(np.asarray(mask.fill_null(False)))
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return job.catalog.table.take(pa.array(chosen))


def _fetch(job: Job, rows: pa.Table) -> pa.Table:
    places = zip(rows["file"].to_pylist(), rows["position"].to_pylist(), strict=True)
    return fetch(job.catalog.dataset, places)


def _items(job: Job, fetched: pa.Table, modality: Modality) -> list[Any]:
    if modality == "text":
        return fetched["text"].to_pylist()
    limit = job.config.dataset.max_pixels
    return [_decoded(data, limit) for data in encoded_images(fetched).to_pylist()]


def _decoded(data: bytes | None, limit: int, side: int | None = None) -> Image.Image | None:
    """A picture that is of use at a side; None for one that can't be decoded any more."""
    try:
        return decode(data or b"", limit, side)
    except UndecodableImage:
        return None
