"""Commands that ask whether completing pays, and with which settings: evaluate, tune."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import AsJson, ConfigPath, errors_in_one_line

if TYPE_CHECKING:
    from pipeline.evaluation.forecast import Forecast
    from pipeline.evaluation.report.table import Table


def evaluate(
    config: ConfigPath,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Variants by comma, or `table`, `ablations`; default: the config's.",
        ),
    ] = None,
    rates: Annotated[
        str | None, typer.Option(metavar="RATES", help="Missing rates by comma, as 0.3,0.7.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Fine-tunings a variant; default: the config's.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,C", help="Values of a setting to compare; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hide known halves, complete them under each variant, and measure what that is worth.

    Everything is kept by content, so that another variant, rate or seed costs only itself. How long
    it will take is measured on a few rows and said before it begins.

    \b
    Examples:
      rag4dmc evaluate examples/scenes/evaluate.yaml --rates 0.7
      rag4dmc evaluate my.yaml --variants drop,direct,rag4dmc,complete
      rag4dmc evaluate my.yaml --variants rag4dmc --sweep retrieval.k=5,10,15
    """
    with errors_in_one_line():
        from flows.progress import RunView
        from pipeline.config.config import load_config
        from pipeline.config.variants import name_variants
        from pipeline.evaluation.changes import parse_sweep
        from pipeline.evaluation.experiment import Experiment
        from pipeline.evaluation.report.page import markdown, tables, warnings, write_page
        from pipeline.storage.errors import ConfigError
        from pipeline.storage.files import write_whole

        try:
            wanted = None if rates is None else [float(rate) for rate in rates.split(",")]
        except ValueError:
            raise ConfigError(f"--rates: must be numbers by comma; got {rates!r}") from None
        if wanted is not None and not all(0 < rate < 1 for rate in wanted):
            raise ConfigError(f"--rates: must lie between 0 and 1; got {rates!r}")
        names = None if variants is None else name_variants(variants)
        loaded = load_config(config)
        sweeps = [parse_sweep(text, loaded) for text in sweep or ()]
        with RunView() as view:
            experiment = Experiment(loaded, view.step)
            results = experiment.run(names, wanted, seeds, sweeps, _foretell)
        path = results.save(experiment.folder)
        write_whole(experiment.folder / "results.md", markdown(results))
        page = write_page(results, experiment.folder / "index.html")
    if as_json:
        answer = results.answer() | {"warnings": warnings(results)}
        answer |= {"parquet": str(path), "page": str(page)}
        print(json.dumps(answer, indent=1, default=float))
        return
    for warning in warnings(results):
        print(f"warning: {warning}")
    _show(tables(results))
    print(f"figures: {path}\npage: {page}")


def _foretell(foreseen: Forecast) -> None:
    """Say how long an evaluation will take, before it begins."""
    import sys

    from flows.pace import duration

    least, most = (duration(seconds) for seconds in foreseen.seconds)
    span = least if least == most else f"{least} to {most}"
    print(
        f"{foreseen.rows:,} rows to complete and {foreseen.trainings:,} trainings: {span} at most,"
        " besides building knowledge bases; what variants share is made once",
        file=sys.stderr,
        flush=True,
    )


def _show(found: Sequence[Table]) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console()
    # Piped into a file, nothing shall be cut to 80 columns.
    wide = console if console.is_terminal else Console(width=240)
    for table in found:
        drawn = Drawn(title=table.title, caption=table.note, title_justify="left")
        drawn.caption_justify = "left"
        for place, heading in enumerate(table.headings):
            drawn.add_column(heading, justify="left" if place == 0 else "right")
        for row in table.rows:
            drawn.add_row(*row)
        wide.print(drawn)


def tune(
    config: ConfigPath,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the complete pairs to hide.")
    ] = 0.3,
    rows: Annotated[int, typer.Option(min=20, help="Pairs to hide at most.")] = 400,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure, and leave the config as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set k, α, τ and λ for this dataset, each with its evidence, where the gain is sure.

    A share of the complete pairs is hidden: one half of it chooses, the other confirms. A setting
    whose gain is not above zero with 95 % certainty stays as it is. λ is tried where
    evaluation.judge is another encoder than the one that selects.

    \b
    Examples:
      rag4dmc tune examples/scenes/dmc.yaml --dry-run
      rag4dmc tune my.yaml --share 0.2
    """
    with errors_in_one_line():
        from flows.progress import RunView
        from pipeline.config.config import load_config
        from pipeline.evaluation.tuning.trials import write_tuned
        from pipeline.evaluation.tuning.tuner import Tuner

        loaded = load_config(config)
        with RunView() as view:
            tuner = Tuner(loaded, share, rows, view.step)
            tuned = tuner.run()
        write = bool(tuned.changes) and not dry_run
        if write:
            write_tuned(config, tuned)
    if as_json:
        print(json.dumps(tuned.answer() | {"written": write}, indent=1, default=float))
        return
    print(f"{tuned.rows} of {tuned.pairs} complete pairs hidden: half chose, half confirmed")
    for trial in tuned.trials:
        for key in trial.settings:
            held, best = trial.held[key], trial.best[key]
            verdict = f"{held:g} → {best:g}" if trial.changes else f"stays ({held:g})"
            print(f"  {key}: {verdict}   {trial.told()}")
    if tuned.skipped:
        print(f"  {tuned.skipped}")
    written = f"written into {config}" if write else "config left as it is"
    print(f"{written}; evidence: {tuner.folder / 'tuning.json'}")
