"""The command line: each command reads the config and starts one flow or one function.

Heavy libraries are imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="rag4dmc",
    help="Complete incomplete image-text datasets with retrieval-augmented generation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON on standard output.")]


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Turn what a user can mend into one line and an exit status; let the rest show itself."""
    from generators.service import ServiceRefused
    from kb.mapping import NoCompletePairs
    from pipeline.dataset import DatasetError
    from pipeline.errors import ConfigError, RunFailed, RunLocked

    try:
        yield
    except (ConfigError, DatasetError, NoCompletePairs) as error:
        _fail(2, error)
    except RunLocked as error:
        _fail(3, error)
    except (RunFailed, ServiceRefused) as error:
        _fail(1, error)
    except OSError as error:
        # A full disk, a read-only output, a vanished input: what was done stands.
        _fail(1, error)


def _fail(status: int, error: Exception) -> None:
    print(f"rag4dmc: {' '.join(str(error).split())}", file=sys.stderr)
    raise typer.Exit(status) from None


def _quiet_libraries() -> None:
    """No telemetry, and no server noise where nobody set up a Prefect server."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)


@app.callback()
def _start() -> None:
    _quiet_libraries()


def _job(config: Path, progress: Any = None) -> Any:
    from pipeline.build import quiet
    from pipeline.config import load_config
    from pipeline.job import Job

    return Job(load_config(config), progress or quiet)


@app.command()
def inspect(config: ConfigPath, as_json: AsJson = False) -> None:
    """Say what is complete, missing and unreadable, and what a run would do.

    Example: rag4dmc inspect examples/emoji/dmc.yaml
    """
    with _errors_in_one_line():
        from flows.progress import RunView

        with RunView() as view:
            job = _job(config, view.step)
            plan = job.plan()
        generation = job.config.generation
        answer = {
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


@app.command()
def fetch(config: ConfigPath) -> None:
    """Download the models that the config names; local ones are checked.

    Example: rag4dmc fetch examples/full/dmc.yaml
    """
    with _errors_in_one_line():
        job = _job(config)
        for part in job.config.parts():
            for role, model in job.bench.models(part).items():
                print(f"{part.section} {role}: {model.name} at {model.revision} in {model.path}")


@app.command()
def build(config: ConfigPath) -> None:
    """Build the knowledge base, where it is stale.

    Example: rag4dmc build examples/emoji/dmc.yaml
    """
    with _errors_in_one_line():
        from flows.progress import RunView

        with RunView() as view:
            job = _job(config, view.step)
            from flows.run import adopt, build_flow

            adopt(str(config), job, view)
            built = build_flow(str(config))
        manifest = job.knowledge_base.manifest
        print(f"knowledge base {'built' if built else 'up to date'}: {manifest['counts']}")
        print(f"  {job.bench.knowledge_base_folder}")


@app.command()
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

    Example: rag4dmc run examples/emoji/dmc.yaml --limit 20
    """
    with _errors_in_one_line():
        from flows.progress import RunView

        with RunView() as view:
            job = _job(config, view.step)
            from flows.run import adopt, run_flow

            adopt(str(config), job, view)
            summary = run_flow(str(config), limit, retry_failed)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        _print_summary(summary)
    failed = summary["outcomes"]["failed"]
    if fail_on_failed is not None and failed > fail_on_failed:
        _fail(
            1,
            RuntimeError(f"{failed} rows failed, more than --fail-on-failed {fail_on_failed}"),
        )


def _print_summary(summary: dict[str, Any]) -> None:
    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    print(f"{summary['rows']} rows: {outcomes}")
    seconds = sum(step["seconds"] for step in summary["times"])
    print(f"  {summary['done_now']} done in this run, in {seconds:.0f} s")
    if summary["held_back"]:
        print(f"  {summary['held_back']} more are pending (--limit)")
    if summary["outcomes"]["failed"]:
        print("  try the failed rows again with: rag4dmc run CONFIG --retry-failed")
    print(f"completed dataset: {summary['completed']}")
    for name, place in summary["exports"].items():
        print(f"export ({name}): {place}")
    print(f"report: {summary['report']}")


@app.command()
def export(
    config: ConfigPath,
    format: Annotated[
        str, typer.Option(help="parquet, webdataset, imagefolder, llava or open_clip.")
    ] = "parquet",
    output: Annotated[
        Path | None, typer.Option(help="Folder; default exports/FORMAT of the run.")
    ] = None,
    only: Annotated[str, typer.Option(help="completed, observed or all.")] = "all",
    min_score: Annotated[
        float | None, typer.Option(help="Leave out generated halves with a lower score.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns beside id, image and text, by comma.")
    ] = None,
) -> None:
    """Export the completed dataset for training, swapped in whole, with a dataset card.

    Example: rag4dmc export examples/emoji/dmc.yaml --format webdataset --only completed
    """
    with _errors_in_one_line():
        from pydantic import ValidationError

        from pipeline.errors import ConfigError, first_error
        from pipeline.export import ExportSettings

        values: dict[str, Any] = {"format": format, "only": only, "min_score": min_score}
        if columns is not None:
            values["columns"] = [name.strip() for name in columns.split(",") if name.strip()]
        try:
            settings = ExportSettings.model_validate(values)
        except ValidationError as error:
            raise ConfigError(first_error(error, "export")) from None
        done = _job(config).export(settings, output)
    left = ", ".join(f"{count} {why}" for why, count in done.left_out.items() if count)
    print(f"{done.rows} rows in {done.folder}" + (f"; left out: {left}" if left else ""))


@app.command()
def report(config: ConfigPath) -> None:
    """Write the report page of the completed dataset again.

    Example: rag4dmc report examples/emoji/dmc.yaml
    """
    with _errors_in_one_line():
        print(_job(config).report())


@app.command()
def search(
    config: ConfigPath,
    image: Annotated[Path | None, typer.Option(help="An image file to search by.")] = None,
    text: Annotated[str | None, typer.Option(help="A text to search by.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Pairs to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what the knowledge base retrieves for an image or a text.

    Example: rag4dmc search examples/emoji/dmc.yaml --text "a red apple"
    """
    with _errors_in_one_line():
        from pipeline.errors import ConfigError

        if (image is None) == (text is None):
            raise ConfigError("search: give either --image FILE or --text TEXT")
        hits = _job(config).search(image, text, count)
    if as_json:
        print(json.dumps(hits, indent=1))
        return
    for hit in hits:
        print(
            f"{hit['score']:.3f} (intra {hit['intra']:.3f}, cross {hit['cross']:.3f})"
            f"  {hit['id']}  {' | '.join(hit['text'])}"
        )


@app.command()
def serve(
    config: ConfigPath,
    cron: Annotated[str, typer.Option(help="When to run, as a cron line.")] = "0 2 * * *",
) -> None:
    """Stay and run on a schedule, at most one run at a time.

    Example: rag4dmc serve examples/emoji/dmc.yaml --cron "0 2 * * *"
    """
    with _errors_in_one_line():
        path = config.resolve()
        name = _job(path).config.name
        from prefect.client.schemas.objects import ConcurrencyLimitConfig

        from flows.run import run_flow

        print(f"serving {name}: {cron}; stop with Ctrl-C", flush=True)
        run_flow.serve(
            name=f"rag4dmc-{name}",
            cron=cron,
            parameters={"config": str(path)},
            limit=1,
            global_limit=ConcurrencyLimitConfig(limit=1),
        )


def main() -> None:
    """The entry point `rag4dmc`."""
    app()


if __name__ == "__main__":
    main()
