"""The report of a run's folder: gathers what the page shows, so that it can be written any time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import yaml

from kb.embeddings import Subset
from pipeline.knowledge.embedding import held_embeddings
from pipeline.ledger.summary import told
from pipeline.report.page import completed_rows, write_report
from pipeline.report.projection import Projection, project

if TYPE_CHECKING:
    from pipeline.job import Job


def report_run(job: Job, summary: Mapping[str, Any], cards: int) -> Path:
    """Write `report/index.html` of a run that has a knowledge base; its path."""
    config, bench = job.config, job.bench
    models = []
    for part in config.parts():
        for role, model in bench.models(part).items():
            models.append(
                {
                    "role": f"{part.section} {role}" if role != "model" else part.section,
                    "model": model.name,
                    "revision": model.revision,
                }
            )
    shown = {
        "name": config.name,
        "run_id": summary.get("run_id"),
        "finished": summary.get("finished"),
        "settings": yaml.safe_dump(
            config.model_dump(mode="json", exclude_defaults=True), sort_keys=False
        ),
        "models": models,
        "times": summary.get("times", []),
        "warnings": summary.get("warnings", []),
        "changes": told(summary)[:1] if "why" in summary else [],
    }
    path = job.folder / "report" / "index.html"
    rows_by_id: dict[str, int] = {}

    def example_image(pair: str) -> bytes | None:
        if not rows_by_id:
            ids = job.knowledge_base.pairs["id"].to_pylist()
            rows_by_id.update({pair_id: row for row, pair_id in enumerate(ids)})
        row = rows_by_id.get(pair)
        if row is None:
            return None
        found = bench.example_pairs([row], with_images=True).get(row)
        return None if found is None else found["bytes"]

    write_report(
        path,
        completed_rows(job.ledger.files()),
        shown,
        job.knowledge_base.manifest,
        example_image=example_image,
        projection=_projection(job),
        verdicts=job.verdicts(),
        sample=cards,
        seed=config.run.seed,
    )
    return path


def _projection(job: Job) -> Projection | None:
    """The image side of the knowledge base by source, before and after purification.

    None where no raw embedding is held any more: a report encodes nothing.
    """
    knowledge = job.knowledge_base
    before = {
        name: held_embeddings(job.bench, found, "image") for name, found in job.catalogs().items()
    }
    before = {name: held for name, held in before.items() if len(held)}
    if not before:
        return None
    sources = knowledge.pairs["source"]
    after = {
        name: Subset(knowledge.embeddings["image"], np.flatnonzero(pc.equal(sources, name)))
        for name in pc.unique(sources).to_pylist()
    }
    return project(before, after, random_state=job.config.run.seed)
