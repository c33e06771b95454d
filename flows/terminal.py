"""What every command shares: its arguments, errors in one line, and quiet libraries."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from flows.progress import RunView
    from pipeline.job import Job

ConfigPath = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="The YAML config of the run.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON on standard output.")]


# Libraries below the parts; parts of a user's own may warn.
_LIBRARIES = (
    "accelerate",
    "aiobotocore",
    "botocore",
    "diffusers",
    "faiss",
    "filelock",
    "fsspec",
    "httpx",
    "huggingface_hub",
    "open_clip",
    "PIL",
    "s3fs",
    "torch",
    "transformers",
    "urllib3",
)


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end, which is done as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def end_as_interrupted() -> None:
    """Take the signals that ask a process to end as Ctrl-C, unless they are ignored (nohup)."""

    def terminated(number: int, frame: object) -> NoReturn:
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, terminated)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what a user can mend into one line and an exit status; let the rest show itself."""
    from generators.service_errors import ServiceRefused
    from kb.mapping import NoCompletePairs
    from pipeline.dataset.dataset import DatasetError
    from pipeline.storage.errors import ConfigError, RunFailed, RunLocked

    try:
        yield
    except (ConfigError, DatasetError, NoCompletePairs) as error:
        fail(2, error)
    except RunLocked as error:
        fail(3, error)
    except (RunFailed, ServiceRefused) as error:
        fail(1, error)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        fail(
            128 + number,
            "interrupted; what was done stands, and the same command goes on from there",
        )
    except OSError as error:
        # A full disk, a read-only output, a vanished input: what was done stands.
        fail(1, error)


def fail(status: int, error: Exception | str) -> NoReturn:
    """End with one line on standard error."""
    print(f"rag4dmc: {' '.join(str(error).split())}", file=sys.stderr)
    raise typer.Exit(status) from None


def settle_home() -> None:
    """Give Prefect a folder of its own for as long as this process runs, where its own can't be written.

    It keeps its profile and the database of its temporary server there, and without would try for
    minutes. Nobody's settings can be in a folder that is not there.
    """
    if "PREFECT_HOME" in os.environ:
        return
    try:
        own = Path("~/.prefect").expanduser()
        own.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=own):
            return
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where the home is
        folder = tempfile.mkdtemp(prefix="rag4dmc-prefect-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["PREFECT_HOME"] = folder


def quiet_libraries() -> None:
    """No telemetry, and no server noise where nobody set up a Prefect server."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Prefect would look for its server on this machine behind a proxy, where one is set.
    for name in ("NO_PROXY", "no_proxy"):
        known = os.environ.get(name)
        os.environ[name] = ",".join(filter(None, (known, "127.0.0.1", "localhost")))
    # A person sees the run's own lines; a server that stands has Prefect's on its pages.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    # Their notices are for who writes programs with them; ours are logged by our own packages.
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def job_of(config: Path, view: RunView | None = None) -> Job:
    """The job of a config for a command that writes nothing of it, or whose flow takes the lock.

    It tells `view` how far it is. What is new on an output's URL is fetched, unless a run on this
    machine is at it.
    """
    job = _job(config, view)
    job.home.refresh(job.run_id)
    return job


@contextmanager
def locked_job(config: Path) -> Iterator[Job]:
    """The job of a config for a command that writes in its folder: nobody else does meanwhile.

    Where the output is a URL, what was written goes there in the end.

    Raises
    ------
    RunLocked
        Another run or command is at it.
    """
    job = _job(config)
    with job.lock():
        yield job


def _job(config: Path, view: RunView | None = None) -> Job:
    from pipeline.config.config import load_config
    from pipeline.job import Job
    from pipeline.knowledge.embedding import quiet

    return Job(load_config(config), view.step if view else quiet)
