"""What servers count of a run's requests: summed up, priced, and foreseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from generators.service_errors import ServiceRefused
from pipeline.config.config import load_config
from pipeline.ledger.summary import told
from pipeline.ledger.usage import used
from tests import quick_worlds
from tests.generators.server import Server

# What the server tells of each answer.
IN, OUT = 100, 7
PRICE = {"input": 2.5, "output": 10.0, "image": 0.04}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def world(folder: Path, server: Server, half: str = "text", **part: Any) -> Path:
    """Eight halves to make in blocks of four rows, two candidates each in one attempt."""
    lacking = {"text": (8, 0), "image": (0, 8)}[half]
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(12, *lacking))
    section = {"text": "captioner", "image": "image_generator"}[half]
    settings = server.settings(kind="openai", concurrency=2) | part
    generation = {"n": 2, "attempts": 1, "ungrounded": {"text": 0}}
    return quick_worlds.config(folder, **{section: settings, "generation": generation})


def test_a_run_sums_up_what_its_answers_took_and_cost(tmp_path: Path, server: Server) -> None:
    # Of what is tried again the first try counts as a request; an answer without a caption is paid for.
    empty = {"choices": [], "usage": {"prompt_tokens": IN, "completion_tokens": OUT}}
    server.script.extend([503, 429, (200, {}, json.dumps(empty).encode())])
    _, summary = quick_worlds.run(world(tmp_path, server, price=PRICE))
    now = summary["usage"]["text"]["now"]
    cost = 16 * (IN * 2.5 + OUT * 10) / 1e6
    assert now == {
        "requests": 18,
        "answers": 16,
        "input_tokens": 16 * IN,
        "output_tokens": 16 * OUT,
        "images": 0,
        "cost": pytest.approx(cost, abs=1e-6),
    }
    assert len(server.seen) == 18
    line = "server for texts: 18 requests, 1,600 tokens in, 112 out, USD 0.01"
    assert line in told(summary)


def test_reruns_add_up_and_a_new_price_redoes_nothing(tmp_path: Path, server: Server) -> None:
    quick_worlds.run(world(tmp_path, server))
    _, idle = quick_worlds.run(world(tmp_path, server, price=PRICE))
    assert len(server.seen) == 16
    assert idle["usage"]["text"]["now"]["requests"] == 0
    assert idle["usage"]["text"]["all"]["input_tokens"] == 16 * IN
    _, again = quick_worlds.run(world(tmp_path, server, price=PRICE, temperature=0.5))
    usage = again["usage"]["text"]
    assert (usage["now"]["answers"], usage["all"]["answers"]) == (16, 32)
    assert usage["all"]["cost"] == pytest.approx(2 * usage["now"]["cost"])
    assert "all runs: 32 requests" in "\n".join(told(again))


def test_images_are_counted_and_priced_by_the_picture(tmp_path: Path, server: Server) -> None:
    _, summary = quick_worlds.run(world(tmp_path, server, "image", price={"image": 0.04}))
    now = summary["usage"]["image"]["now"]
    assert (now["images"], now["input_tokens"], now["output_tokens"]) == (16, 16 * 20, 16 * 300)
    assert now["cost"] == pytest.approx(16 * 0.04)
    assert list(summary["usage"]) == ["image"]


def test_what_a_run_used_is_on_disk_after_each_block(tmp_path: Path, server: Server) -> None:
    path = world(tmp_path, server)
    ledger = load_config(path).folder / "ledger"
    rows, held = 0, []

    def look(outcomes: dict[str, int]) -> None:
        nonlocal rows
        rows += outcomes.get("completed", 0)
        if rows:
            held.append((rows, used(ledger)["text"].answers))

    quick_worlds.run(path, rows_done=look)
    assert [done for done, _ in held] == [4, 8]
    assert all(answers >= 2 * done for done, answers in held)


def test_what_was_used_before_a_refusal_counts_in_the_next_summary(
    tmp_path: Path, server: Server
) -> None:
    server.script.extend([None] * 11 + [401] * 5)
    path = world(tmp_path, server, concurrency=1)
    with pytest.raises(ServiceRefused):
        quick_worlds.run(path)
    asked = len(server.seen)
    server.script.clear()
    _, summary = quick_worlds.run(path)
    usage = summary["usage"]["text"]
    assert usage["all"]["answers"] == 11 + usage["now"]["answers"]
    assert usage["all"]["requests"] == asked + usage["now"]["requests"] == len(server.seen)


def test_inspect_foresees_tokens_and_cost_and_says_on_what_that_rests(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world(tmp_path, server, price=PRICE)

    def inspected(*options: str) -> tuple[dict[str, Any], str]:
        told = [
            CliRunner().invoke(app, ["inspect", str(path), *options, *more])
            for more in ([], ["--json"])
        ]
        assert [one.exit_code for one in told] == [0, 0], told[0].output
        return json.loads(told[1].stdout)["spending"]["text"], told[0].stdout

    foreseen, said = inspected()
    assert foreseen["requests"] == [16, 16] and foreseen["rests_on"] is None
    assert "server for texts: 16 requests, their usage is not known yet" in said
    foreseen, said = inspected("--time")
    assert foreseen["rests_on"] == "the requests of --time"
    assert foreseen["input_tokens"] == [16 * IN] * 2 and foreseen["output_tokens"] == [16 * OUT] * 2
    quick_worlds.run(path, limit=2)
    foreseen, said = inspected()
    assert foreseen["rests_on"] == "the requests of earlier runs" and foreseen["answers"] == 4
    assert foreseen["requests"] == [12, 12]
    assert foreseen["cost"] == [pytest.approx(12 * (IN * 2.5 + OUT * 10) / 1e6)] * 2
    assert "1200 tokens in, 84 out, USD 0.00, by 4 answers to the requests of earlier runs" in said
