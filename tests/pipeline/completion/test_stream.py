"""Requests of many blocks under way at once: nothing waits for one slow answer, and all is written in order."""

from __future__ import annotations

import base64
import gc
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from generators.service_errors import ServiceRefused
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.generators.server import Seen, Server

PART = {"text": "captioner", "image": "image_generator"}
BLANK = json.dumps({"choices": [{"message": {"content": " "}, "finish_reason": "stop"}]}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def world(folder: Path, server: Server, half: str = "text", **changes: Any) -> Path:
    """Sixteen halves to make in two shards of two blocks of four rows, two candidates each."""
    lacking = {"text": (16, 0), "image": (0, 16)}[half]
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(12, *lacking))
    part = server.settings(kind="openai", retries=0, concurrency=4) | changes.pop("part", {})
    return quick_worlds.config(folder, **{PART[half]: part} | changes)


def until(reached: Callable[[], bool], told: list[bool]) -> Callable[[], None]:
    """Wait for something, at most half a minute, and tell whether it came."""

    def wait() -> None:
        end = time.monotonic() + 30
        while not reached() and time.monotonic() < end:
            time.sleep(0.01)
        told.append(reached())

    return wait


def picture_in(seen: Seen) -> bytes:
    """The last picture of a request for a caption, which is the row's own."""
    address = seen.fields["messages"][-1]["content"][0]["image_url"]["url"]
    return base64.b64decode(address.partition(",")[2])


@pytest.mark.parametrize("half", ["text", "image"])
def test_one_slow_answer_keeps_no_request_of_other_blocks_or_shards_waiting(
    half: str, tmp_path: Path, server: Server
) -> None:
    told: list[bool] = []
    # All but those of the last block, which may be unsent as long as this one is awaited.
    server.script.append(until(lambda: len(server.seen) >= 24, told))
    generation = {"n": 2, "attempts": 1, "ungrounded": {"text": 0}}
    job, summary = quick_worlds.run(world(tmp_path, server, half, generation=generation))
    assert told == [True]
    # The server's pictures are of one colour each: they come, and are rejected.
    assert summary["outcomes"]["completed" if half == "text" else "rejected"] == 16
    assert len(server.seen) == 32
    given = [row["id"] for row in quick_worlds.rows(12, 16, 0)]
    for path in job.ledger.files():
        places = [given.index(one) for one in pq.read_table(path)["id"].to_pylist()]
        assert places == sorted(places)


def test_blocks_are_judged_while_an_earlier_one_is_awaited_and_the_result_is_the_same(
    tmp_path: Path, server: Server
) -> None:
    plain, _ = quick_worlds.run(world(tmp_path / "plain", server))
    server.script.append(until(lambda: len(server.seen) >= 32 + 24, []))
    held, _ = quick_worlds.run(world(tmp_path / "held", server))
    made = [
        {
            name: (row["text"], row["completion"])
            for name, row in quick_worlds.completed(job).items()
        }
        for job in (plain, held)
    ]
    for rows in made:
        for _, completion in rows.values():
            if completion is not None:
                completion.pop("run_id")
                completion.pop("kb_version")
    assert made[0] == made[1]


def test_pictures_that_were_sent_are_held_as_what_is_sent(tmp_path: Path, server: Server) -> None:
    alive: list[int] = []

    def count() -> None:
        until(lambda: len(server.seen) == 32, [])()
        gc.collect()
        alive.append(sum(isinstance(one, Image.Image) for one in gc.get_objects()))

    before = sum(isinstance(one, Image.Image) for one in gc.get_objects())
    server.script.append(count)
    quick_worlds.run(world(tmp_path, server, part={"concurrency": 8}))
    # Sixteen rows and their examples were decoded.
    assert alive[0] - before <= 4


def test_rows_without_a_valid_candidate_are_asked_for_again_with_the_same_pictures(
    tmp_path: Path, server: Server
) -> None:
    server.script.extend([(200, {}, BLANK)] * 8)
    changes = {"generation": {"n": 2, "attempts": 2, "ungrounded": {"text": 0}}}
    job, summary = quick_worlds.run(world(tmp_path, server, **changes))
    assert summary["outcomes"]["completed"] == 16 and len(server.seen) == 32 + 8
    rows = quick_worlds.completed(job).values()
    assert (
        sorted(row["completion"]["attempt"] for row in rows if row["missing"]) == [1] * 12 + [2] * 4
    )
    asked = [picture_in(seen) for seen in server.seen]
    assert sorted(set(asked[:8])) == sorted(one for one in set(asked) if asked.count(one) == 4)
    assert all(Image.open(io.BytesIO(one)).size == (32, 32) for one in asked)


def test_a_block_whose_answers_come_after_the_refusal_of_a_later_one_stands(
    tmp_path: Path, server: Server
) -> None:
    """The budget is spent in the second block while the first one's first answer is awaited."""
    told: list[bool] = []
    server.script.append(until(lambda: len(server.seen) >= 12, told))
    path = world(tmp_path, server, part={"max_requests": 12})
    with pytest.raises(ServiceRefused, match="budget of 12 requests"):
        quick_worlds.run(path)
    assert told == [True] and len(server.seen) == 12
    assert Job(load_config(path)).plan().pending["text"] == 12


@pytest.mark.parametrize("kind", ["openai", "tests.quick_parts:QuickCaptioner"])
def test_blocks_that_were_done_when_a_run_was_interrupted_stand(
    kind: str, tmp_path: Path, server: Server
) -> None:
    def interrupt(outcomes: dict[str, int]) -> None:
        if "completed" in outcomes:
            raise KeyboardInterrupt

    path = world(tmp_path, server)
    if kind != "openai":
        path = quick_worlds.config(tmp_path, captioner={"kind": kind})
    with pytest.raises(KeyboardInterrupt):
        quick_worlds.run(path, rows_done=interrupt)
    plan = Job(load_config(path)).plan()
    assert plan.done == 12 + 16 - plan.pending["text"]
    assert plan.pending["text"] in (8, 12)
    _, summary = quick_worlds.run(path)
    assert summary["outcomes"] == {"observed": 12, "completed": 16, "rejected": 0, "failed": 0}


def test_what_is_remembered_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    run = {"shard_size": 8, "block_size": 4, "remember": True}
    _, first = quick_worlds.run(world(tmp_path, server, run=run))
    other = {"selection": {"caption": {"agreement": 0.9}}}
    _, again = quick_worlds.run(world(tmp_path, server, run=run, **other))
    assert len(server.seen) == 32 and again["sections"]
    assert again["outcomes"] == first["outcomes"]
