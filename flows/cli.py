"""The command line: each command reads the config and starts one flow or one function.

Heavy libraries are imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

import typer

from flows.commands import dataset, proof, result, work
from flows.terminal import end_as_interrupted, quiet_libraries, settle_home
from flows.watchdog import watch

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
    watch()


def main() -> None:
    """The entry point `rag4dmc`."""
    status: int | str | None = 1

    def leave() -> None:
        # What is left would be to take apart every object of torch and Prefect: seconds for nothing.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))

    # Of what is done at the end this is the last, since it is the first that is asked for.
    atexit.register(leave)
    end_as_interrupted()
    try:
        app()
    except SystemExit as end:
        status = end.code
        raise


if __name__ == "__main__":
    main()
