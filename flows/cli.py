"""The command line: each command reads the config and starts one flow or one function.

Heavy libraries are imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys

import typer

from flows.commands import dataset, proof, result, work
from flows.terminal import quiet_libraries, settle_home

app = typer.Typer(
    name="rag4dmc",
    help="Complete incomplete image-text datasets with retrieval-augmented generation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# In the order in which one uses them.
for _command in (
    dataset.init,
    dataset.inspect,
    work.fetch,
    work.build,
    work.run,
    result.search,
    result.report,
    result.review,
    result.export,
    proof.evaluate,
    proof.tune,
    work.serve,
):
    app.command()(_command)


@app.callback()
def _start() -> None:
    settle_home()
    quiet_libraries()


def main() -> None:
    """The entry point `rag4dmc`."""
    # Without a handler the process would be gone, and Prefect's temporary server stay.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()


if __name__ == "__main__":
    main()
