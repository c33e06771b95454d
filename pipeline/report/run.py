"""The report of a run's folder: gathers what the page shows, so that it can be written any time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import yaml

from kb.embeddings import Subset
from pipeline.job import Job
from pipeline.ledger.summary import read_summary, told
from pipeline.report.check import shown_check
from pipeline.report.page import completed_rows, write_report
from pipeline.report.projection import Projection, project

# Rows in the gallery: enough to judge by, few enough to open on a phone.
CARDS = 400


def report_run(job: Job, cards: int = CARDS) -> Path:
    """Write `report/index.html` of the completed dataset; its path. Needs the lock.

    Parameters
    ----------
    job
    cards
        About how many rows the gallery shows.

    Raises
    ------
    ConfigError
        Nothing was completed yet, or the knowledge base is damaged.
    """
    job.check_completed()
    config, summary, knowledge = job.config, read_summary(job.folder), job.knowledge.checked()
    models = []
    for component in config.components():
        if not job.models.resolved(component):
            name = component.served or component.kind
            models.append({"role": component.section, "model": name, "revision": None})
        for role, model in job.models.resolved(component).items():
            models.append(
                {
                    "role": f"{component.section} {role}" if role != "model" else component.section,
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
        "warnings": [*summary.get("hopeless", []), *summary.get("warnings", [])],
        "changes": told(summary)[:1] if "why" in summary else [],
    }
    path = job.folder / "report" / "index.html"
    rows_by_id: dict[str, int] = {}

    def example_image(pair: str) -> bytes | None:
        if not rows_by_id:
            ids = knowledge.pairs["id"].to_pylist()
            rows_by_id.update({pair_id: row for row, pair_id in enumerate(ids)})
        row = rows_by_id.get(pair)
        if row is None:
            return None
        found = job.knowledge.pairs([row], with_images=True).get(row)
        return None if found is None or found.fault else found.encoded

    write_report(
        path,
        completed_rows(job.ledger.files()),
        shown,
        knowledge.manifest,
        example_image=example_image,
        projection=_projection(job),
        verdicts=job.verdicts(),
        check=shown_check(job),
        sample=cards,
        seed=config.run.seed,
    )
    return path


def _projection(job: Job) -> Projection | None:
    """The image side of the knowledge base by source, before and after purification.

    None where no raw embedding is held any more: a report encodes nothing.
    """
    knowledge = job.knowledge.checked()
    before = {
        name: job.embeddings.held(name, "image") for name in job.sources.catalogs(job.progress)
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
