"""The report of a run's folder: gathers what the page shows, so that it can be written any time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from pipeline.report.page import completed_rows, write_report
from pipeline.report.projection import Projection, project
from pipeline.summary import told

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
        return None if row is None else bench.example_pairs([row], with_images=True)[row]["bytes"]

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


def _projection(job: Job) -> Projection:
    """The image side of the knowledge base by source, before and after purification."""
    knowledge = job.knowledge_base
    before = {
        name: np.asarray(pairs.embeddings["image"][:])
        for name, pairs in job.pairs().items()
        if len(pairs)
    }
    sources = np.asarray(knowledge.pairs["source"].to_pylist())
    after = {
        name: np.asarray(knowledge.embeddings["image"])[sources == name]
        for name in dict.fromkeys(sources.tolist())
    }
    return project(before, after, random_state=job.config.run.seed)
