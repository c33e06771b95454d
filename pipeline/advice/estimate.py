"""What a run would do and take, said before it is started; nothing is downloaded or generated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from generators.usage import Usage
from kb.embeddings import MODALITIES, Modality, opposite
from pipeline.advice.spending import spending
from pipeline.advice.splits import mixed_splits
from pipeline.config.config import Config
from pipeline.config.run import FEWEST_CHECKED
from pipeline.dataset.catalog import Catalog, encoded_images, fetch
from pipeline.dataset.earlier import made_earlier
from pipeline.dataset.encoding import ImageFormat
from pipeline.dataset.images import decode
from pipeline.dataset.misread import misread
from pipeline.dataset.overlooked import overlooked, without_pairs
from pipeline.dataset.sources import Progress, quiet
from pipeline.job import Job
from pipeline.models.components import Component
from pipeline.storage.errors import ConfigError

SAMPLE_ROWS = 64
# Of these so many are encoded as generated pictures are.
SAMPLE_ENCODED = 16
SAMPLE_FILES = 4
# What a generated row holds besides its halves, and an observed one (measured on the example).
PROVENANCE_BYTES = 700
ROW_BYTES = 60


def estimate(config: Config, progress: Progress = quiet, time: bool = False) -> dict[str, Any]:
    """Look at a config's data and models, and say what `rag4dmc run` would do.

    Parameters
    ----------
    config
    progress
        Called with the name of a step, what is done of it, and the total (0: unknown).
    time
        Load the models, and time them on a handful of rows.

    Returns
    -------
    dict
        `rows`, `files`, `counts` (rows by what is missing), `reasons` (per half, why), `pending`
        (rows to do by missing half; "none" pass through), `why` and `sections` (see
        `pipeline.ledger.plan.Plan`), `made` (those of them that have a generator), `done` (rows that stand; None where a model is not here, since what
        was done with it can't be told then), `shards`, `calls` (candidates to draw and items to
        embed, [least, most]), `external` (complete pairs by name; None where not read yet),
        `models` (of each: `role`, `model`, `here`, `bytes` to download, None where not known),
        `disk` (`completed` and `exports` in bytes, `an_image` that is generated, `free`), `output`,
        `check` (`pairs` that a run would complete for its check, by half, and what the last one `found`:
        `pipeline.check.figures`),
        `advice` (what to change about the data, and what of it is not used, a line each), `spending`
        (of servers that generate, see `pipeline.advice.spending`), and `time` of
        `pipeline.advice.timing.measure`.

    Raises
    ------
    RunFailed
        More rows vanished from the input than `run.max_deleted_share` allows.
    ConfigError
        `time` is asked for while a model is not on this machine.
    """
    offline = config.run.model_copy(update={"offline": True})
    job = Job(config.model_copy(update={"run": offline}), progress)
    job.home.refresh(job.run_id)
    catalog, counts = job.catalog, job.catalog.counts()
    models = [model for each in config.components() for model in _models(config, each)]
    answer: dict[str, Any] = {
        "rows": len(catalog),
        "files": len(catalog.dataset.files),
        "counts": counts,
        "reasons": catalog.reasons(),
    }
    if all(model["here"] for model in models):
        plan = job.plan()
        names = ("pending", "why", "sections", "done")
        answer |= {name: getattr(plan, name) for name in names} | {"shards": len(plan.shards)}
    else:
        answer |= _all_pending(counts, config.run.shard_size)
    external = _external(job)
    # Rows that have no generator are rejected, which takes next to nothing.
    made: dict[str, int] = {
        half: answer["pending"][half] if half in config.made else 0 for half in MODALITIES
    }
    checked = _checked(job, counts)
    asked: dict[str, int] = {half: made[half] + checked[half] for half in MODALITIES}
    stops = {half: job.check.stops(half, checked[half]) for half in MODALITIES}
    drawn: dict[str, list[int]] = {
        half: config.generation.draws(
            made[half], checked[half], stops[half], config.drawn_again(half)
        )
        for half in MODALITIES
    }
    answer |= {
        "made": made,
        "calls": _calls(drawn, asked, counts, external),
        "external": external,
        "models": models,
        "disk": _disk(job, made),
        "output": config.output_url or str(job.folder),
        "advice": _advice(job, external),
        "check": {"pairs": checked, "found": job.check.figures()},
    }
    timed: dict[Modality, Usage] = {}
    if time:
        gone = [model["model"] for model in models if not model["here"]]
        if gone:
            raise ConfigError(
                f"--time: {gone[0]} is not on this machine; first: rag4dmc fetch CONFIG"
            )
        from pipeline.advice.timing import measure

        answer["time"] = measure(job, made, external, stops, timed)
        if size := answer["time"]["bytes_an_image"]:
            more = made["image"] * (int(size) - answer["disk"]["an_image"])
            answer["disk"]["completed"] += more
            answer["disk"]["exports"] += more * len(config.export)
            answer["disk"]["an_image"] = int(size)
    return answer | {"spending": spending(config, drawn, timed)}


def _checked(job: Job, counts: Mapping[str, int]) -> dict[str, int]:
    """Pairs that a run would complete for its check, by half; before there is a knowledge base about so many."""
    if job.knowledge.stands and job.check.planned:
        planned = job.check.planned
        return {half: sum(len(s.rows) for s in planned.get(half, ())) for half in MODALITIES}
    pairs, run = counts["complete"], job.config.run
    most = pairs if pairs >= FEWEST_CHECKED else 0
    made = job.config.made
    return {
        half: min(most, run.checked(counts[half])) if half in made else 0 for half in MODALITIES
    }


def _advice(job: Job, external: Mapping[str, int | None]) -> list[str]:
    """What to change about the datasets that were read, and what of them is not used."""
    own = job.sources.dataset
    lines = [*own.advice(), *mixed_splits(job.catalog), *overlooked(job.catalog), *misread(own)]
    lines += made_earlier(job.catalog)
    for name in (name for name, pairs in external.items() if pairs is not None):
        catalog = job.sources.catalog(name)
        dataset = catalog.dataset
        told = [*dataset.advice(), *overlooked(catalog), *misread(dataset), *made_earlier(catalog)]
        lines += [f"external {name}: {line}" for line in told]
        lines += filter(None, [without_pairs(name, catalog)])
    return lines


def _all_pending(counts: Mapping[str, int], shard_size: int) -> dict[str, Any]:
    pending = {
        "none": counts["complete"] + counts["both"],
        "text": counts["text"],
        "image": counts["image"],
    }
    return {
        "pending": pending,
        "why": {},
        "sections": {},
        "done": None,
        "shards": sum(-(-rows // shard_size) for rows in pending.values()),
    }


def _models(config: Config, component: Component) -> list[dict[str, Any]]:
    """A component's models, and what is to be downloaded of them."""
    names = {role: name for role, (name, _) in component.models().items()}
    return [
        {
            "role": component.section if role == "model" else f"{component.section} {role}",
            "model": names[role],
            "here": missing == 0,
            "bytes": missing,
        }
        for role, missing in component.missing_bytes(config.base).items()
    ]


def _external(job: Job) -> dict[str, int | None]:
    """Complete pairs of each external dataset that was read before; reading one takes its time."""
    folder = job.folder / "catalog"
    names = [settings.name for settings in job.config.external]
    if not all((folder / name).is_dir() for name in names):
        return dict.fromkeys(names)
    found = job.sources.catalogs(job.progress)
    return {name: len(found[name].complete()) for name in names}


def _calls(
    drawn: Mapping[str, list[int]],
    pending: Mapping[str, int],
    counts: Mapping[str, int],
    external: Mapping[str, int | None],
) -> dict[str, list[int]]:
    pairs = counts["complete"] + sum(count or 0 for count in external.values())
    embedded: dict[Modality, list[int]] = {}
    for half in MODALITIES:
        other = opposite(half)
        least = pending[other] + drawn[half][0]
        embedded[half] = [least, least + pairs + drawn[half][1] - drawn[half][0]]
    return {
        "captions": drawn["text"],
        "images": drawn["image"],
        "images_embedded": embedded["image"],
        "texts_embedded": embedded["text"],
    }


def _disk(job: Job, pending: Mapping[str, int]) -> dict[str, int]:
    """Bytes that the run will write, and those of a picture that is generated."""
    counts, each = job.catalog.counts(), image_bytes(job.catalog)
    images = counts["complete"] + counts["text"]
    generated = pending["image"] + pending["text"]
    drawn = generated_bytes(job) if pending["image"] else 0.0
    kept = 0.0
    if job.config.run.remember and pending["image"]:
        # Every candidate, as it was drawn.
        each_kept = _encoded_bytes(job, ImageFormat(lossless=True))
        most = job.config.generation.most + job.config.drawn_again("image")
        kept = pending["image"] * most * each_kept
    completed = int(
        images * each
        + pending["image"] * drawn
        + generated * PROVENANCE_BYTES
        + len(job.catalog) * ROW_BYTES
    )
    place = next(p for p in (job.folder, *job.folder.parents) if p.is_dir())
    return {
        "completed": completed,
        "an_image": int(drawn),
        "exports": completed * len(job.config.export),
        "remembered": int(kept),
        "free": shutil.disk_usage(place).free,
    }


def generated_bytes(job: Job) -> float:
    """Mean size of a generated picture: of those that were drawn, else by its pixels."""
    return drawn_bytes(job) or _encoded_bytes(job, job.config.generation.image_format)


def _encoded_bytes(job: Job, format: ImageFormat) -> float:
    """What a generated picture will take in a format.

    Pictures of the dataset tell how many bytes a pixel takes in it, and the generator's settings how many
    pixels it draws; a generator that does not say is taken to draw as many as they have.
    """
    limit = job.config.dataset.max_pixels
    pictures = [decode(data, limit) for data in _some_images(job.catalog)[:SAMPLE_ENCODED]]
    sizes = [(len(format.encode(one)), one.width * one.height) for one in pictures]
    if not sizes:
        return 0.0
    settings = job.config.generator_component("image").settings
    pixels = getattr(settings, "drawn_pixels", lambda: None)() or np.mean([p for _, p in sizes])
    return float(pixels * sum(size for size, _ in sizes) / sum(count for _, count in sizes))


def drawn_bytes(job: Job) -> float | None:
    """Mean size of the pictures that this run has generated, over a few; None without any."""
    sizes: list[int] = []
    for path in job.ledger.files()[-SAMPLE_FILES:]:
        rows = pq.read_table(path, columns=["image", "status", "missing"])
        made = pc.and_(pc.equal(rows["status"], "completed"), pc.equal(rows["missing"], "image"))
        found = pc.struct_field(rows.filter(made)["image"].combine_chunks(), "bytes")
        sizes += [size for size in pc.binary_length(found).to_pylist() if size]
    return float(np.mean(sizes)) if sizes else None


def image_bytes(catalog: Catalog) -> float:
    """Mean size of an encoded image of the dataset, over a few rows of a few files."""
    sizes = [len(data) for data in _some_images(catalog)]
    return float(np.mean(sizes)) if sizes else 0.0


def _some_images(catalog: Catalog) -> list[bytes]:
    """A few encoded images of the dataset, of a few of its files."""
    table = catalog.table
    rows = np.flatnonzero(np.asarray(catalog.has("image")))
    generator = np.random.default_rng(0)
    files = np.unique(table["file"].to_numpy()[rows])
    chosen = generator.choice(files, min(len(files), SAMPLE_FILES), replace=False)
    rows = rows[np.isin(table["file"].to_numpy()[rows], chosen)]
    rows = generator.choice(rows, min(len(rows), SAMPLE_ROWS), replace=False)
    if not len(rows):
        return []
    picked = table.take(pa.array(np.sort(rows)))
    places = zip(picked["file"].to_pylist(), picked["position"].to_pylist(), strict=True)
    return [data for data in encoded_images(fetch(catalog.dataset, places)).to_pylist() if data]
