"""Commands that do a job or a part of it: fetch, build, run, serve."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flows.terminal import AsJson, ConfigPath, errors_in_one_line, fail, job_of


def fetch(config: ConfigPath) -> None:
    """Download the models that the config names; local ones are checked.

    What is here is compared with the hub, and mended. A model without a pinned revision is taken as
    it is there now, and stays so until it is fetched again.

    \b
    Examples:
      rag4dmc fetch examples/full/dmc.yaml
    """
    with errors_in_one_line():
        job = job_of(config)
        for component in job.config.components():
            for role, model in component.fetch(job.config.base).items():
                print(
                    f"{component.section} {role}: {model.name} at {model.revision} in {model.path}"
                )


def build(config: ConfigPath) -> None:
    """Build the knowledge base, where it is stale or damaged.

    \b
    Examples:
      rag4dmc build examples/scenes/dmc.yaml
    """
    with errors_in_one_line():
        from flows.progress import RunView
        from kb.storage import read_manifest

        with RunView() as view:
            job = job_of(config, view)
            from flows.run import adopt, build_flow

            adopt(str(config), job, view)
            built = build_flow(str(config))
        folder = job.knowledge.folder
        counts = read_manifest(folder)["counts"]
        print(f"knowledge base {'built' if built else 'up to date'}: {counts}")
        print(f"  {folder}")
        for warning in job.knowledge.warnings():
            print(f"  warning: {warning}")


def run(
    config: ConfigPath,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Most incomplete rows of this run, for a pilot."),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try rows again that ended in an error."),
    ] = False,
    fail_on_failed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Exit with 1 when more than N rows failed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build what is stale, complete what is pending, export, and write the report.

    \b
    Examples:
      rag4dmc run examples/scenes/dmc.yaml
      rag4dmc run my.yaml --limit 20           # a pilot
      rag4dmc run my.yaml --retry-failed
    """
    with errors_in_one_line():
        from flows.progress import RunView

        with RunView() as view:
            job = job_of(config, view)
            from flows.engines import check_installed

            # Told before a server starts for it.
            check_installed(job.config.engine)
            from flows.run import adopt, run_flow

            adopt(str(config), job, view)
            summary = run_flow(str(config), limit, retry_failed)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        _print_summary(summary)
    failed = summary["outcomes"]["failed"]
    if fail_on_failed is not None and failed > fail_on_failed:
        fail(1, f"{failed} rows failed, more than --fail-on-failed {fail_on_failed}")


def _print_summary(summary: dict[str, Any]) -> None:
    from pipeline.ledger.summary import told

    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    print(f"{summary['rows']} rows: {outcomes}")
    seconds = sum(step["seconds"] for step in summary["times"])
    print(f"  {summary['done_now']} done in this run, in {seconds:.0f} s")
    for line in told(summary):
        print(f"  {' '.join(line.split())}")
    if summary["held_back"]:
        print(f"  {summary['held_back']} more are pending (--limit)")
    if summary["outcomes"]["failed"]:
        print("  try the failed rows again with: rag4dmc run CONFIG --retry-failed")
    print(f"completed dataset: {summary['completed']}")
    for name, place in summary["exports"].items():
        print(f"export ({name}): {place}")
    print(f"report: {summary['report']}")


def serve(
    config: ConfigPath,
    cron: Annotated[str, typer.Option(help="When to run, as a cron line.")] = "0 2 * * *",
) -> None:
    """Stay and run on a schedule, at most one run at a time.

    \b
    Examples:
      rag4dmc serve examples/scenes/dmc.yaml --cron "0 2 * * *"
    """
    with errors_in_one_line():
        path = config.resolve()
        name = job_of(path).config.name
        from flows.deployments import serve as serve_run

        serve_run(name, path, cron)
