"""What a run shows of itself once its rows are done: the summary, the exports, the report page.

What they were made of is noted last, so that a run cut off among them is made up for by the next,
and a run that changed nothing writes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.dataset.catalog import digest
from pipeline.export.export import is_export
from pipeline.job import Job
from pipeline.ledger.review import FILE as REVIEW
from pipeline.ledger.review import Reviewed
from pipeline.report.run import report_run
from pipeline.storage.files import read_json, write_whole

NOTE = "presented.json"


def present(job: Job, summary: dict[str, Any]) -> dict[str, Any]:
    """Keep a run's summary, export, and write the report; the summary with their places."""
    folder, settings = job.folder, job.config.export
    note = read_json(folder / NOTE) or {}
    of = _made_of(job)
    page = folder / "report" / "index.html"
    stale = note.get("of") != of or not page.is_file()
    if stale:
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        write_whole(folder / "summaries" / f"{summary['run_id']}.json", text)
        write_whole(folder / "summary.json", text)
    wanted = {s.place: s.model_dump(mode="json") for s in settings}
    exports = {s.place: folder / "exports" / s.place for s in settings}
    standing = {} if stale else note["exports"]
    for each in settings:
        if standing.get(each.place) != wanted[each.place] or not is_export(exports[each.place]):
            job.export(each)
    if stale:
        report_run(job)
    if stale or note["exports"] != wanted:
        write_whole(folder / NOTE, json.dumps({"of": of, "exports": wanted}, indent=1))
    if job.mirror is not None:
        places = {name: job.mirror.exports.url(name) for name in exports}
    else:
        places = {name: str(place) for name, place in exports.items()}
    return summary | {
        "completed": job.place(folder / "completed"),
        "report": job.place(page),
        "exports": places,
    }


def review(job: Job, marks: Path) -> Reviewed:
    """Keep the marks of a report and show them in it; see `Job.take_review`. Needs the lock."""
    taken = job.take_review(marks)
    if taken.accepted or taken.rejected:
        report_run(job)
    return taken


def _made_of(job: Job) -> dict[str, str]:
    """What the exports and the report are made of."""
    review = json.dumps(read_json(job.folder / REVIEW), sort_keys=True)
    return {
        "completed": job.ledger.version(),
        "knowledge base": job.knowledge.version(),
        "review": digest(review),
    }
