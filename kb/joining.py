"""Bringing a knowledge base up to date without a fit: pairs join, pairs leave, files move."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kb import contents
from kb.building import addition
from kb.embeddings import MODALITIES, Stacked, Subset
from kb.fitting import HELD_OUT, expected_queries
from kb.growth import Growth
from kb.index.kinds import outgrown
from kb.mapping import CrossModalMapping
from kb.mapping.held_out import HeldOut
from kb.pairs import Pairs
from kb.purification import FOLDERS, Purification
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.stopwatch import Stopwatch
from kb.storage import digest_files, replacing, write_manifest

KEPT_FOLDERS = ("mapping", *FOLDERS)


def join(
    folder: Path,
    manifest: Mapping[str, Any],
    growth: Growth,
    internal: Pairs,
    recipe: Recipe,
) -> None:
    """Writes a folder with the rows that stay and the new ones, and swaps it into place.

    New pairs go through the mapping, the rotations, the clusters and the thresholds that are
    there; rows that stay keep their embeddings bit for bit.

    Parameters
    ----------
    folder, manifest : the knowledge base as it is
    growth : Growth
        Not empty, and no rebuild.
    internal : Pairs
        All internal pairs that there are now.
    recipe : Recipe
        The one it was built by.
    """
    settings = recipe.settings
    watch = Stopwatch()
    number = len(manifest["additions"])
    known = pq.read_table(folder / "known.parquet")
    gone = len(known) - int(growth.staying_known.sum())
    with replacing(folder) as building:
        for name in KEPT_FOLDERS:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, building / name)
        assert growth.table is not None
        stays = np.flatnonzero(growth.staying_pairs)
        embeddings = contents.open_contents(folder)
        held = Pairs(growth.table, {m: Subset(embeddings[m], stays) for m in MODALITIES})
        sides = [contents.Side(held, None)]
        if growth.internal is not None and "internal" in settings.sources:
            sides.append(contents.Side(growth.internal, "internal"))
        with watch.step("purification"):
            if "external" in settings.sources:
                sides += _judged(folder, building, growth, settings, number)
        with watch.step("pairs"):
            counts = contents.write_contents(building, sides, manifest["dimensions"], number)
            new: list[tuple[Pairs, contents.Origin]] = [(p, "external") for p in growth.external]
            if growth.internal is not None:
                new.insert(0, (growth.internal, "internal"))
            tables = [known.filter(pa.array(growth.staying_known))]
            if new:
                tables.append(contents.known_table(new, number))
            contents.write_table(building / "known.parquet", tables)
        with watch.step("index"):
            embeddings = contents.open_contents(building)
            as_it_is = manifest["indexes"]["image"]
            if outgrown(as_it_is, settings.index, len(embeddings["image"])):
                seed, device = recipe.random_state, settings.device
                mapping = CrossModalMapping.load(folder / "mapping" / "mapping", device)
                held_out = HeldOut.load(folder / HELD_OUT)
                unseen = None if held_out is None else held_out.predictions
                expected = expected_queries(internal, mapping, unseen, recipe)
                built = contents.build_indexes(
                    building, embeddings, settings.index, seed, device, expected
                )
                indexes = {m: index.describe() for m, index in built.items()}
            else:
                left = np.flatnonzero(~growth.staying_pairs)
                indexes = contents.update_indexes(
                    folder, building, embeddings, left, settings.device
                )
        with watch.step("digests"):
            files = digest_files(building)
        entries = list(manifest["additions"])
        if growth.news:
            entry = addition(building, number, growth.internal, growth.external, counts, gone)
            entries.append({**entry, "steps": watch.steps})
        purification = manifest["purification"]
        if purification is not None:
            # Clusters and thresholds stay; the rows that were judged by them do not.
            verdicts = contents.verdict_counts(building)
            judged = {"rows_in": sum(verdicts.values()), "verdicts": verdicts}
            purification = {**purification, "filter": {**purification["filter"], **judged}}
        write_manifest(
            building,
            {
                **manifest,
                "version": contents.version(building, files, manifest["retrieval"]),
                "counts": {
                    **manifest["counts"],
                    **contents.count(building),
                    "internal_changed": growth.internal_changed,
                    "external_changed": growth.external_changed,
                },
                "purification": purification,
                "indexes": indexes,
                "additions": entries,
                "device": settings.device,
                "files": files,
            },
        )


def _judged(
    folder: Path, building: Path, growth: Growth, settings: KnowledgeBaseSettings, number: int
) -> Sequence[contents.Side]:
    """New external pairs through the filter and the rotations; verdicts of all that are there."""
    if not settings.purify:
        return [contents.Side(pairs, "external") for pairs in growth.external]
    if not (folder / "verdicts.parquet").exists():
        return []
    verdicts = pq.read_table(folder / "verdicts.parquet")
    if not growth.staying_known.all():
        ids = pq.read_table(folder / "known.parquet", columns=["id"])["id"].combine_chunks()
        stays = pc.is_in(verdicts["id"], value_set=ids.filter(pa.array(growth.staying_known)))
        verdicts = verdicts.filter(stays)
    if not growth.external:
        contents.write_table(building / "verdicts.parquet", [verdicts])
        return []
    fitted = Purification.load(folder, settings.device)
    stacked = {m: Stacked([p.embeddings[m] for p in growth.external]) for m in MODALITIES}
    found = fitted.judge(stacked)
    news = contents.verdict_table(found, growth.external, number)
    contents.write_table(building / "verdicts.parquet", [verdicts, news])
    sides, first = [], 0
    for pairs in growth.external:
        kept = found.kept[first : first + len(pairs)]
        sides.append(contents.Side(pairs, "external", kept, fitted.alignments))
        first += len(pairs)
    return sides
