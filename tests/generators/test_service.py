"""A server that misbehaves: what is asked again, what fails a row, what ends the call."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from generators.base import CaptionRequest
from generators.openai_captions import OpenAICaptionSettings
from generators.openai_images import OpenAIImageSettings
from generators.service_errors import ServiceRefused
from pipeline.storage.passing import may_pass
from tests.generators.server import Server, captioner

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    "act",
    [429, 500, 502, 503, "slow", "drip", "cut", "hang up", "not json", "list"],
)
def test_a_server_that_misbehaves_once_is_asked_again(
    act: Any, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.append(act)
    (answer,) = captioner(server, timeout=0.5).generate([ask(7)])
    assert [one.text for one in answer.candidates] == ["caption 7"]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (500, "status 500: "),
        ("slow", "no answer within 0.3 s"),
        ("drip", "no answer within 0.3 s"),
        ("cut", "connection failed: "),
        ("hang up", "connection failed: "),
        ("not json", "the answer is not a JSON object: <html>bad gateway"),
    ],
)
def test_a_server_that_keeps_misbehaving_fails_that_row_alone(
    act: Any, words: str, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([act] * 3)
    asked = captioner(server, timeout=0.3, concurrency=1)
    first, second = asked.generate([ask(1, row="first"), ask(2, row="second")])
    assert first.candidates == ()
    assert first.error is not None
    assert words in first.error
    assert "(3 tries)" in first.error
    assert [one.text for one in second.candidates] == ["caption 2"]


def test_an_answer_that_drips_is_given_up_at_the_timeout(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    """It never pauses as long as the timeout, and would take six seconds in all."""
    server.script.append("drip")
    started = time.monotonic()
    (answer,) = captioner(server, timeout=0.5, retries=0).generate([ask(1)])
    assert answer.error == "no answer within 0.5 s"
    assert time.monotonic() - started < 4


def test_the_wait_that_a_server_asks_for_is_kept(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.append((429, {"Retry-After": "0.6"}, b"{}"))
    started = time.monotonic()
    (answer,) = captioner(server).generate([ask(1)])
    assert answer.error is None
    assert time.monotonic() - started >= 0.6


@pytest.mark.parametrize("wait", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "nan", "inf", "soon"])
def test_a_wait_that_makes_no_sense_is_not_kept(
    wait: str, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.append((429, {"Retry-After": wait}, b"{}"))
    started = time.monotonic()
    assert captioner(server).generate([ask(1)])[0].error is None
    assert time.monotonic() - started < 3


def test_a_request_that_is_wrong_is_not_sent_again(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.append((422, {}, b'{"error": "no such field"}'))
    (answer,) = captioner(server).generate([ask(1)])
    assert answer.error is not None
    assert "no such field" in answer.error
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_requests_that_are_all_wrong_end_the_call(
    status: int, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    """A wrong model or field would fail every row of a dataset, one after another."""
    server.script.extend([status] * 100)
    with pytest.raises(ServiceRefused, match=f"finds every request wrong: status {status}"):
        captioner(server, concurrency=1).generate([ask(n, row=f"row-{n}") for n in range(50)])
    assert len(server.seen) == 3


def test_rows_that_the_server_finds_wrong_fail_alone_once_it_has_taken_another(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([400, None, *[400] * 20])
    asked = captioner(server, concurrency=1)
    answers = asked.generate([ask(n, row=f"row-{n}") for n in range(22)])
    assert [answer.error is None for answer in answers] == [n == 1 for n in range(22)]


def test_candidates_that_came_are_kept_where_one_of_a_row_did_not(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([None, 500, None])
    (answer,) = captioner(server, concurrency=1, retries=0).generate([ask(1, 2, 3)])
    assert [one.text for one in answer.candidates] == ["caption 1", "caption 3"]
    assert answer.error is not None and "status 500" in answer.error


def test_nothing_of_the_environment_is_sent_but_the_key_that_is_named(
    server: Server, ask: Callable[..., CaptionRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, KEY)
    captioner(server).generate([ask(1)])
    assert KEY not in str(server.seen[0])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_address_ends_the_call_and_not_only_a_row(
    status: int, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([status] * 10)
    with pytest.raises(ServiceRefused, match=f"refuses: status {status}"):
        captioner(server, concurrency=1).generate([ask(n, row=f"row-{n}") for n in range(10)])
    assert len(server.seen) <= 2


def test_an_account_without_credit_ends_the_call(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    body = json.dumps({"error": {"code": "insufficient_quota"}}).encode()
    server.script.append((429, {}, body))
    with pytest.raises(ServiceRefused, match="no quota left"):
        captioner(server).generate([ask(1)])


def test_a_redirect_is_not_followed(server: Server, ask: Callable[..., CaptionRequest]) -> None:
    with Server() as elsewhere:
        server.script.append((307, {"Location": f"{elsewhere.url}/chat/completions"}, b""))
        with pytest.raises(ServiceRefused, match="status 307"):
            captioner(server).generate([ask(1)])
        assert elsewhere.seen == []


@pytest.mark.parametrize("act", [503, 429, "hang up", "not json"])
def test_a_server_that_answers_no_row_any_more_ends_the_call(
    act: Any, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    asked = captioner(server, concurrency=1, retries=1)
    assert asked.generate([ask(1, row="before")])[0].error is None
    server.script.extend([act] * 1000)
    with pytest.raises(ServiceRefused, match="seems to be down; what was done stands: "):
        asked.generate([ask(n, row=f"row-{n}") for n in range(100)])
    assert len(server.seen) < 20


def test_rows_without_an_answer_fail_alone_while_others_get_one(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([500, 500, None] * 10)
    asked = captioner(server, concurrency=1, retries=0)
    answers = asked.generate([ask(n, row=f"row-{n}") for n in range(30)])
    assert [answer.error is None for answer in answers] == [False, False, True] * 10


def test_one_row_that_breaks_the_server_is_no_outage(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([500] * 8)
    first, second = captioner(server, concurrency=1, retries=0).generate(
        [ask(*range(8), row="bad"), ask(9, row="good")]
    )
    assert first.error is not None
    assert [one.text for one in second.candidates] == ["caption 9"]


def test_trying_a_shard_again_is_not_for_a_server_that_is_down() -> None:
    """Each request was tried again already, and a shard's finished rows would be asked for anew."""
    assert not may_pass(ServiceRefused("http://localhost/v1 seems to be down"))


def test_a_spent_budget_ends_the_call(server: Server, ask: Callable[..., CaptionRequest]) -> None:
    server.script.append(500)
    asked = captioner(server, max_requests=4, concurrency=1)
    first, second = asked.generate([ask(1, 2, row="a"), ask(3, row="b")])
    assert first.error is None and second.error is None
    with pytest.raises(ServiceRefused, match=r"budget of 4 requests \(max_requests\) is spent"):
        asked.generate([ask(4, row="c")])
    assert len(server.seen) == 4


def test_requests_go_out_side_by_side_up_to_the_limit(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.pause = 0.2
    answers = captioner(server, concurrency=3).generate([ask(*range(9))])
    assert answers[0].error is None
    assert server.most_at_once == 3


def test_the_key_comes_from_the_environment_and_shows_nowhere(
    server: Server,
    ask: Callable[..., CaptionRequest],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OWN_KEY", f" {KEY}\n")
    echo = json.dumps({"error": {"message": f"Bearer {KEY} is new here"}}).encode()
    server.script.extend([(500, {}, echo), (401, {}, echo)])
    asked = captioner(server, api_key_env="OWN_KEY")
    with caplog.at_level(logging.DEBUG), pytest.raises(ServiceRefused) as refused:
        asked.generate([ask(1)])
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    shown = [str(refused.value), repr(asked.settings), repr(asked.service), str(vars(asked))]
    shown += [json.dumps(asked.settings.identity()), caplog.text]
    assert not any(KEY in text for text in shown)
    assert "Bearer *** is new here" in str(refused.value)


def test_a_missing_key_is_named_before_anything_is_sent(
    server: Server, ask: Callable[..., CaptionRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OWN_KEY", raising=False)
    with pytest.raises(ServiceRefused, match="environment variable OWN_KEY is not set"):
        captioner(server, api_key_env="OWN_KEY").generate([ask(1)])
    assert server.seen == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"send_data": False}, "send_data must be true"),
        ({"base_url": "ftp://host/v1"}, "must start with http"),
        ({"base_url": "localhost:8000"}, "must start with http"),
        ({"base_url": "http://user:word@host/v1"}, "must not hold a user or password"),
        ({"api_key": KEY}, "api_key"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    values = {"base_url": "http://localhost/v1", "model": "m", "send_data": True} | settings
    for cls in (OpenAICaptionSettings, OpenAIImageSettings):
        with pytest.raises(ValueError, match=words):
            cls.model_validate(values)


def test_nothing_is_sent_by_default() -> None:
    with pytest.raises(ValueError, match="send_data must be true for kind openai: rows and"):
        OpenAICaptionSettings(base_url="http://localhost/v1", model="m")


@pytest.mark.parametrize("field", ["messages", "prompt", "model", "image"])
def test_what_is_recorded_cannot_be_asked_otherwise(field: str) -> None:
    values = {"base_url": "http://localhost/v1", "model": "m", "send_data": True}
    for cls in (OpenAICaptionSettings, OpenAIImageSettings):
        with pytest.raises(ValueError, match=f"extra must not hold {field}, which"):
            cls.model_validate(values | {"extra": {field: "x"}})
