"""What a run shows of itself once its rows are done: the summary, the exports, the report page.

What they were made of is noted last, so that a run cut off among them is made up for by the next,
and a run that changed nothing writes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.export.export import Exported, NothingToExport, export, is_export
from pipeline.export.settings import ExportSettings
from pipeline.job import Job
from pipeline.ledger.review import FILE as REVIEW
from pipeline.ledger.review import Reviewed, take_marks
from pipeline.ledger.summary import read_summary
from pipeline.report.run import report_run
from pipeline.storage.digests import digest
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
    empty: dict[str, str] = {}
    for each in settings:
        if standing.get(each.place) != wanted[each.place] or not is_export(exports[each.place]):
            try:
                export_run(job, each)
            except NothingToExport as error:
                # The rows are done, and the report is what says why there are none.
                former = "; the former one stays" if is_export(exports[each.place]) else ""
                why = str(error).removeprefix("export: ")
                empty[each.place] = f"export {each.place}: {why}{former}"
    summary = summary | {"warnings": [*summary["warnings"], *empty.values()]}
    if stale:
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        write_whole(folder / "summaries" / f"{summary['run_id']}.json", text)
        write_whole(folder / "summary.json", text)
        report_run(job)
    if stale or note["exports"] != wanted:
        write_whole(folder / NOTE, json.dumps({"of": of, "exports": wanted}, indent=1))
    return summary | {
        "completed": job.home.place(folder / "completed"),
        "report": job.home.place(page),
        "exports": {name: job.home.export_place(name) for name in exports if name not in empty},
    }


def export_run(job: Job, settings: ExportSettings, folder: Path | None = None) -> Exported:
    """Write the completed dataset in a consumer's layout; see `pipeline.export.export.export`.

    Needs the lock, for parts that are read here may be written again by a run.

    Parameters
    ----------
    job
    settings
    folder
        Default `exports/NAME` in the run's folder.

    Raises
    ------
    ConfigError
        Nothing was completed yet, or what `export` refuses.
    """
    job.check_completed()
    place = folder or job.folder / "exports" / settings.place
    # Our lock keeps no other run out of a folder that is not ours.
    owner = "" if folder is None else digest(str(job.folder))[:8]
    waiting = read_summary(job.folder).get("held_back", 0)
    done = export(
        job.completed(),
        place,
        settings,
        job.config.name,
        job.verdicts(),
        owner=owner,
        waiting=waiting,
        check=job.check.figures(),
    )
    if folder is None:
        job.home.send_export(place, settings.place, job.run_id)
    return done


def review(job: Job, marks: Path) -> Reviewed:
    """Keep the marks of a report, and show them in it; needs the lock.

    Rejected rows are pending then; accepted ones stay, whatever becomes of the settings.

    Raises
    ------
    ConfigError
        Nothing was completed yet, the marks are not of this run, or none of them counts.
    """
    job.check_completed()
    taken = take_marks(marks, job.config.name, job.review, job.ledger)
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
        "check": job.check.version(),
    }
