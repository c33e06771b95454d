"""Commands that look at a dataset before anything is done to it: init, inspect."""

from __future__ import annotations

import json
from typing import Any

from flows.terminal import AsJson, ConfigPath, errors_in_one_line, job_of


def inspect(config: ConfigPath, as_json: AsJson = False) -> None:
    """Say what is complete, missing and unreadable, and what a run would do.

    \b
    Examples:
      rag4dmc inspect examples/emoji/dmc.yaml
    """
    with errors_in_one_line():
        from flows.progress import RunView

        with RunView() as view:
            job = job_of(config, view)
            plan = job.plan()
        generation = job.config.generation
        answer: dict[str, Any] = {
            "rows": len(job.catalog),
            "files": len(job.catalog.dataset.files),
            **job.catalog.counts(),
            "reasons": job.catalog.reasons(),
            "pending": plan.pending,
            "done": plan.done,
            "shards": len(plan.shards),
            "captions_to_draw": plan.pending["text"] * generation.n,
            "images_to_draw": plan.pending["image"] * generation.n,
            "output": str(job.folder),
        }
    if as_json:
        print(json.dumps(answer, indent=1))
        return
    print(f"{answer['rows']} rows in {answer['files']} files")
    for name in ("complete", "text", "image", "both"):
        label = (
            "complete" if name == "complete" else f"without {name if name != 'both' else 'either'}"
        )
        print(f"  {answer[name]:>8} {label}")
    for half, reasons in answer["reasons"].items():
        for reason, count in reasons.items():
            print(f"           {half}: {reason} ({count})")
    print(
        f"a run would complete {plan.pending['text']} texts ({answer['captions_to_draw']} captions"
        f" drawn) and {plan.pending['image']} images ({answer['images_to_draw']} drawn)"
        f" in {answer['shards']} shards; {plan.done} rows stand already"
    )
    print(f"output: {answer['output']}")
