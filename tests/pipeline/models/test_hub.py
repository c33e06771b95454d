"""Models of the hub, fetched and found again, against a small real HTTP server in its stead.

Every step is a process of its own, as a user's commands are: the client keeps listings in memory.
Those of a test are forked off one that has imported the client, which takes longer than a step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import scene_rows, write_world

FIRST = "462165984030d82259a11f4367a4eed129e94a7b"
SECOND = "5" * 40
FILES = {
    "README.md": b"of no concern",
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"w" * 30,
    "model-00002-of-00002.safetensors": b"w" * 40,
    "pytorch_model.bin": b"pickle",
}
READ = set(FILES) - {"README.md", "pytorch_model.bin"}

# For each line a process that prints the commit, or the error, of `o/m` at the revision given; or
# the bytes that are missing.
ASK = """
import json, os, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from pipeline.storage.errors import ConfigError
from pipeline.models.resolution import missing_bytes, resolve_models

def answer(what, revision):
    models = {"model": ("o/m", revision or None)}
    try:
        if what == "missing":
            return missing_bytes("captioner", models, Path())["model"]
        found = resolve_models(
            "captioner", models, Path(), offline=what == "offline", renew=what == "fetch"
        )
        return found["model"].revision
    except ConfigError as error:
        return error

for line in sys.stdin:
    if os.fork() == 0:
        try:
            print(answer(*json.loads(line)), flush=True)
        except BaseException as error:
            print("the step failed:", repr(error), flush=True)
        os._exit(0)
    os.wait()
"""


class _Handler(BaseHTTPRequestHandler):
    """What a download asks of a hub: a model's commit, its listing and its files."""

    server: _Server

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        path, hub = self.path.split("?")[0], self.server
        api, _, rest = path.partition("/api/models/o/m")
        if not api and (not rest or rest.startswith(("/revision/", "/tree/"))):
            commit = hub.commit(rest.rpartition("/")[2])
            if commit is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound")
                self.end_headers()
            elif rest.startswith("/tree/"):
                self._answer([hub.entry("path", *file) for file in hub.commits[commit].items()])
            else:
                files = [hub.entry("rfilename", *file) for file in hub.commits[commit].items()]
                self._answer({"id": "o/m", "sha": commit, "siblings": files})
        elif path.startswith("/o/m/resolve/"):
            commit, name = path.removeprefix("/o/m/resolve/").split("/", 1)
            hub.asked.append(name)
            self._send(hub.commits[commit][name], commit, f'"{name}"')
        else:
            self.send_error(404)

    def _answer(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "", '"x"')

    def _send(self, body: bytes, commit: str, etag: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    """The hub, and a machine's cache beside it."""

    def __init__(self, cache: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cache = cache / "models--o--m"
        self.commits = {FIRST: dict(FILES)}
        self.main = FIRST
        self.asked: list[str] = []
        self.askers: dict[tuple[tuple[str, str], ...], subprocess.Popen[str]] = {}
        self.environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def commit(self, revision: str) -> str | None:
        return (
            self.main
            if revision in ("", "main")
            else revision
            if revision in self.commits
            else None
        )

    def entry(self, key: str, name: str, body: bytes) -> dict[str, Any]:
        return {"type": "file", key: name, "size": len(body), "oid": "0" * 40}

    def ask(self, what: str, revision: str = "", **environment: str) -> str:
        """One command in a new process: fetch, run, offline or missing."""
        changed = tuple(environment.items())
        if changed not in self.askers:
            self.askers[changed] = subprocess.Popen(
                [sys.executable, "-c", ASK],
                env=self.environment | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        asker = self.askers[changed]
        assert asker.stdin is not None and asker.stdout is not None
        print(json.dumps([what, revision]), file=asker.stdin, flush=True)
        return asker.stdout.readline().rstrip("\n")

    def move_main(self) -> None:
        """A commit upstream that touches what the part reads."""
        self.commits[SECOND] = FILES | {"config.json": b'{"a": 1}'}
        self.main = SECOND

    def cached_by_another_program(self, files: set[str], commit: str = FIRST) -> None:
        """A snapshot without a listing, as one file after the other leaves it."""
        (self.cache / "refs").mkdir(parents=True, exist_ok=True)
        (self.cache / "refs/main").write_text(commit)
        for name in files:
            path = self.cache / "snapshots" / commit / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.commits[commit][name])

    def here(self, commit: str = FIRST) -> set[str]:
        return {path.name for path in (self.cache / "snapshots" / commit).iterdir()}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[_Server]:
    server = _Server(tmp_path / "hub")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    for asker in server.askers.values():
        asker.communicate()
    server.shutdown()
    server.server_close()


def test_what_was_fetched_is_found_offline_and_without_asking_the_hub(hub: _Server) -> None:
    assert hub.ask("missing") == str(2 + 30 + 40)
    assert hub.asked == []
    assert hub.ask("fetch") == FIRST
    assert hub.here() == READ and set(hub.asked) == READ
    hub.commits, hub.asked = {}, []
    assert hub.ask("offline") == hub.ask("run") == hub.ask("run", HF_HUB_OFFLINE="1") == FIRST
    assert hub.ask("missing") == "0"
    # Fetching alone asks, and this hub has lost the model.
    assert "o/m can't be downloaded" in hub.ask("fetch")


@pytest.mark.slow
def test_a_model_stays_at_the_commit_that_was_fetched_until_it_is_fetched_again(
    hub: _Server,
) -> None:
    assert hub.ask("fetch") == FIRST
    hub.move_main()
    assert hub.ask("run") == hub.ask("offline") == FIRST
    # Another program that reads a file of the new commit moves the cache's own ref.
    hub.cached_by_another_program({"config.json"}, SECOND)
    assert hub.ask("run") == hub.ask("offline") == FIRST
    assert hub.ask("run", SECOND) == SECOND
    assert hub.ask("run") == FIRST
    assert hub.ask("fetch") == SECOND
    assert hub.ask("run") == hub.ask("offline") == SECOND


def test_files_that_a_run_needs_besides_come_of_the_commit_that_was_fetched(hub: _Server) -> None:
    hub.ask("fetch")
    hub.move_main()
    (hub.cache / "snapshots" / FIRST / "config.json").unlink()
    assert "is not on this machine" in hub.ask("offline")
    assert hub.ask("missing") == "2"
    assert hub.ask("run") == FIRST
    assert hub.here() == READ
    shutil.rmtree(hub.cache / "snapshots")
    del hub.commits[FIRST]
    assert "the hub has no such revision" in hub.ask("run")


def test_a_snapshot_that_another_program_left_in_part_is_not_taken_for_whole(hub: _Server) -> None:
    hub.cached_by_another_program({"config.json"})
    assert hub.ask("missing") == str(30 + 40)
    hub.cached_by_another_program({"config.json", "model-00001-of-00002.safetensors"})
    assert hub.ask("missing") == "40"
    assert "rag4dmc fetch CONFIG" in hub.ask("offline")
    assert hub.ask("run") == FIRST
    assert hub.here() == READ


def test_a_snapshot_that_another_program_left_whole_is_kept_to(hub: _Server) -> None:
    hub.cached_by_another_program(READ)
    assert hub.ask("offline") == FIRST
    hub.move_main()
    assert hub.ask("run") == FIRST and hub.asked == []


def test_without_a_hub_a_snapshot_that_seems_whole_is_taken(hub: _Server) -> None:
    hub.cached_by_another_program(READ)
    assert hub.ask("run", HF_ENDPOINT="http://127.0.0.1:9") == FIRST


def test_fetching_mends_a_file_that_was_cut_short(hub: _Server) -> None:
    hub.ask("fetch")
    weights = hub.cache / "snapshots" / FIRST / "model-00002-of-00002.safetensors"
    with weights.open("r+b") as file:
        file.truncate(7)
    assert "is not on this machine" in hub.ask("offline")
    assert hub.ask("fetch") == FIRST
    assert weights.stat().st_size == 40
    assert hub.ask("offline") == FIRST


def test_a_repository_without_safetensors_is_refused_before_anything_is_fetched(
    hub: _Server,
) -> None:
    hub.commits[FIRST] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    assert "captioner.model: o/m has no weights as safetensors" in hub.ask("run")
    assert hub.asked == []


def test_what_a_hub_does_not_know_is_told_in_one_line_and_its_size_is_not_known(
    hub: _Server,
) -> None:
    assert hub.ask("fetch", "v2") == (
        "captioner.model: o/m can't be downloaded: the hub has no such revision (any more)"
    )
    assert hub.ask("missing", "v2") == "None"


def test_the_command_fetches_though_the_config_says_offline(hub: _Server, tmp_path: Path) -> None:
    captioner = {"kind": "blip2", "model": "o/m"}
    config = write_world(tmp_path, scene_rows(2, 1, 0), captioner=captioner, run={"offline": True})
    command = [sys.executable, "-m", "flows.cli", "fetch", str(config)]
    for _ in range(2):
        done = subprocess.run(command, env=hub.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"captioner model: o/m at {FIRST} in " in done.stdout
        (hub.cache / "snapshots" / FIRST / "config.json").unlink()
