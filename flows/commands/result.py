"""Commands on what a run has made: search, report, review, export."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.terminal import AsJson, ConfigPath, errors_in_one_line, job_of, locked_job


def export(
    config: ConfigPath,
    format: Annotated[
        Literal["parquet", "webdataset", "imagefolder", "llava", "open_clip"],
        typer.Option(help="Layout, by who reads it."),
    ] = "parquet",
    name: Annotated[
        str | None,
        typer.Option(help="Its folder in exports/ of the run; default: the format."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Another folder, anywhere.")] = None,
    only: Annotated[
        Literal["completed", "observed", "all"],
        typer.Option(help="Rows with a generated half, rows without one, or both."),
    ] = "all",
    best: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HALF=SHARE",
            help="Keep this share of the generated images or texts, best score first: image=0.5.",
        ),
    ] = None,
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HALF=SCORE",
            help="Leave out generated images or texts with a lower score: image=0.",
        ),
    ] = None,
    min_confidence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HALF=CONFIDENCE",
            help="Leave out generated images or texts of which less likeness to the truth is expected, by"
            " the run's check: text=0.6.",
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns beside id, image and text, by comma.")
    ] = None,
) -> None:
    """Export the completed dataset for training, swapped in whole, with a dataset card.

    \b
    Examples:
      rag4dmc export my.yaml
      rag4dmc export my.yaml --format webdataset --only completed
      rag4dmc export my.yaml --best image=0.5 --min-score text=0.3
      rag4dmc export my.yaml --min-confidence text=0.6
      rag4dmc export my.yaml --columns status,missing
    """
    with errors_in_one_line():
        from pydantic import ValidationError

        from pipeline.export.settings import ExportSettings
        from pipeline.storage.errors import ConfigError, first_error

        values: dict[str, Any] = {"format": format, "name": name, "only": only}
        values |= {"best": _by_half(best, "best"), "min_score": _by_half(min_score, "min-score")}
        values["min_confidence"] = _by_half(min_confidence, "min-confidence")
        if columns is not None:
            values["columns"] = [name.strip() for name in columns.split(",") if name.strip()]
        try:
            settings = ExportSettings.model_validate(values)
        except ValidationError as error:
            raise ConfigError(first_error(error, "export")) from None
        with locked_job(config) as job:
            from pipeline.report.presentation import export_run

            done = export_run(job, settings, output)
    left = ", ".join(f"{count} {why}" for why, count in done.left_out.items() if count)
    print(f"{done.rows} rows in {done.folder}" + (f"; left out: {left}" if left else ""))


def _by_half(given: list[str] | None, option: str) -> dict[str, str]:
    """`text=NUMBER` and `image=NUMBER`; what the numbers may be, the settings know."""
    from pipeline.storage.errors import ConfigError

    values: dict[str, str] = {}
    for each in given or []:
        half, equals, number = (part.strip() for part in each.partition("="))
        if half not in ("text", "image") or not number:
            raise ConfigError(
                f"--{option}: must be text=NUMBER or image=NUMBER, for their scores are on different"
                f" scales; got {each!r}"
            )
        values[half] = number
    return values


def report(
    config: ConfigPath,
    cards: Annotated[int, typer.Option(min=1, help="About how many rows the gallery shows.")] = 400,
) -> None:
    """Write the report page of the completed dataset again.

    \b
    Examples:
      rag4dmc report examples/scenes/dmc.yaml
      rag4dmc report my.yaml --cards 2000
    """
    with errors_in_one_line(), locked_job(config) as job:
        from pipeline.report.run import report_run

        page = job.home.place(report_run(job, cards))
    print(page)


def review(
    config: ConfigPath,
    marks: Annotated[
        Path,
        typer.Argument(
            metavar="MARKS",
            help="The file that the report's button `Export marks` saves.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Take the marks that a person made in the report.

    The next run generates rejected halves again, with other seeds; until then no export holds them.
    Accepted halves are never touched again, whatever becomes of the settings.

    \b
    Examples:
      rag4dmc review my.yaml ~/Downloads/marks.json && rag4dmc run my.yaml
    """
    with errors_in_one_line(), locked_job(config) as job:
        from pipeline.report.presentation import review as take_marks

        taken = take_marks(job, marks)
    if as_json:
        print(json.dumps(vars(taken), indent=1))
        return
    known = f", {taken.known} known already" if taken.known else ""
    print(f"{len(taken.accepted)} accepted, {len(taken.rejected)} rejected{known}")
    for why, ids in taken.ignored.items():
        print(f"  {len(ids)} ignored: {why} ({', '.join(ids[:5])}{', …' if ids[5:] else ''})")
    if taken.rejected:
        print(f"generate the rejected halves again with: rag4dmc run {config}")


def search(
    config: ConfigPath,
    image: Annotated[Path | None, typer.Option(help="An image file to search by.")] = None,
    text: Annotated[str | None, typer.Option(help="A text to search by.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Pairs to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what the knowledge base retrieves for an image or a text.

    \b
    Examples:
      rag4dmc search examples/scenes/dmc.yaml --text "galley: two pippins port"
      rag4dmc search my.yaml --image photo.jpg -n 10 --json
    """
    with errors_in_one_line():
        from pipeline.storage.errors import ConfigError

        if (image is None) == (text is None):
            raise ConfigError("search: give either --image FILE or --text TEXT")
        from pipeline.advice.search import search as search_pairs

        hits = search_pairs(job_of(config), image, text, count)
    if as_json:
        print(json.dumps(hits, indent=1))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("score", "intra", "cross", "source", "id", "text", "thumbnail", box=box.SIMPLE)
    for hit in hits:
        figures = (f"{hit[name]:.3f}" for name in ("score", "intra", "cross"))
        words = (hit["source"], hit["id"], " | ".join(hit["text"]), hit["thumbnail"] or "-")
        # Captions come from anywhere: no markup, and nothing that a terminal would obey.
        plain = ("".join(c if c.isprintable() else " " for c in word) for word in words)
        table.add_row(*(Text(cell) for cell in (*figures, *plain)))
    # A path that is cut can't be opened: where nobody looks at a screen, lines are as long as
    # they need to be.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)
