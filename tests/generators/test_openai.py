"""Captions and images of an OpenAI-compatible server that also misbehaves."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import CaptionRequest, Example, ImageRequest
from generators.openai_captions import OpenAICaptioner, OpenAICaptionSettings
from generators.openai_images import OpenAIImageGenerator, OpenAIImageSettings
from generators.service import ServiceRefused
from tests.generators.server import Server

KEY = "sk-very-secret-0123456789"


def settings_of(server: Server, **settings: Any) -> dict[str, Any]:
    return {
        "base_url": server.url,
        "model": "tiny",
        "send_data": True,
        "api_key_env": None,
        "backoff": 0.01,
        "timeout": 5.0,
        "retries": 2,
    } | settings


def captioner(server: Server, **settings: Any) -> OpenAICaptioner:
    return OpenAICaptioner(OpenAICaptionSettings(**settings_of(server, **settings)))


def drawer(server: Server, **settings: Any) -> OpenAIImageGenerator:
    return OpenAIImageGenerator(OpenAIImageSettings(**settings_of(server, **settings)))


@pytest.fixture
def ask(pictures: Callable[..., Image.Image]) -> Callable[..., CaptionRequest]:
    def ask(*seeds: int, row: str = "row", examples: tuple[Example, ...] = ()) -> CaptionRequest:
        return CaptionRequest(row, pictures(0), examples, seeds)

    return ask


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


def test_a_server_that_is_not_there_fails_the_row(ask: Callable[..., CaptionRequest]) -> None:
    with Server() as gone:
        asked = captioner(gone, retries=1)
    (answer,) = asked.generate([ask(1)])
    assert answer.error is not None
    assert answer.error.startswith("connection failed")


def test_the_budget_is_never_exceeded_and_the_rest_says_so(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.append(500)
    asked = captioner(server, max_requests=4, concurrency=1)
    answers = asked.generate([ask(1, 2, row="a"), ask(3, row="b"), ask(4, row="c")])
    assert len(server.seen) == 4
    assert [answer.error is None for answer in answers] == [True, True, False]
    assert answers[2].error == "the budget of 4 requests (max_requests) is spent"


def test_requests_go_out_side_by_side_up_to_the_limit(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.pause = 0.2
    answers = captioner(server, concurrency=3).generate([ask(*range(9))])
    assert answers[0].error is None
    assert server.most_at_once == 3


def test_the_request_holds_turns_limits_and_a_seed_of_its_own(
    server: Server, ask: Callable[..., CaptionRequest], pictures: Callable[..., Image.Image]
) -> None:
    wide = Example("pair-1", "a red hat", pictures(9, (400, 100)))
    request = ask(2**62 + 5, examples=(wide, Example("pair-2", "no image")))
    captioner(server, longest_side=200, system="Be short.").generate([request])
    (seen,) = server.seen
    fields = seen.fields
    assert seen.path == "/v1/chat/completions"
    assert fields["seed"] == 5
    assert (fields["max_tokens"], fields["top_p"], fields["temperature"]) == (40, 0.9, 1.0)
    roles = [message["role"] for message in fields["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert fields["messages"][2]["content"] == "a red hat"
    address = fields["messages"][1]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert sent.size == (200, 50)


def test_metadata_of_an_image_is_not_sent(server: Server) -> None:
    image = Image.new("RGB", (8, 8), "red")
    exif = Image.Exif()
    exif[0x010E] = "the garden of Ms. Miller"
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    request = CaptionRequest("row", Image.open(buffer), (), (1,))
    captioner(server).generate([request])
    address = server.seen[0].fields["messages"][0]["content"][0]["image_url"]["url"]
    assert b"Miller" not in base64.b64decode(address.split(",")[1])


@pytest.mark.parametrize(
    ("choice", "text", "note"),
    [
        ({"message": {"content": " a hat \n"}, "finish_reason": "stop"}, "a hat", None),
        ({"message": {"content": None}, "finish_reason": "stop"}, "", None),
        ({"message": {"content": "a h"}, "finish_reason": "length"}, "a h", "cut at 40 tokens"),
        ({"message": {"content": [{"type": "text", "text": "a hat"}]}}, "a hat", None),
        (
            {"message": {"content": None, "refusal": "I can't."}},
            None,
            "refused: I can't.",
        ),
        (
            {"message": {"content": ""}, "finish_reason": "content_filter"},
            None,
            "refused: content filter",
        ),
    ],
)
def test_answers_are_read_as_servers_write_them(
    choice: dict[str, Any],
    text: str | None,
    note: str | None,
    server: Server,
    ask: Callable[..., CaptionRequest],
) -> None:
    server.answer = {"choices": [choice]}
    (answer,) = captioner(server).generate([ask(1)])
    (candidate,) = answer.candidates
    assert candidate.text == text
    assert candidate.notes == (() if note is None else (note,))


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, {"choices": [{}]}, {"choices": None}, {"choices": [{"message": "hi"}]}],
)
def test_an_answer_of_another_shape_fails_the_row(
    body: Any, server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.answer = body
    (answer,) = captioner(server).generate([ask(1)])
    assert answer.error == "the answer holds no choices[0].message"


def test_declined_content_is_a_candidate_without_a_text(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    body = {"error": {"code": "content_policy_violation", "message": "not this"}}
    server.script.append((400, {}, json.dumps(body).encode()))
    (answer,) = captioner(server, concurrency=1).generate([ask(1, 2)])
    assert answer.error is None
    assert answer.candidates[0].text is None
    assert answer.candidates[0].notes[0].startswith("refused: ")
    assert answer.candidates[1].text == "caption 2"


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


def image_request(*seeds: int, examples: tuple[Example, ...] = ()) -> ImageRequest:
    return ImageRequest("row", "a red hat", examples, seeds)


def test_images_come_in_the_answer_by_seed(server: Server) -> None:
    (answer,) = drawer(server).generate([image_request(3, 300)])
    assert [one.image.getpixel((0, 0)) for one in answer.candidates] == [(3, 0, 0), (44, 1, 0)]
    assert {seen.path for seen in server.seen} == {"/v1/images/generations"}
    assert server.seen[0].fields["response_format"] == "b64_json"
    assert answer.candidates[0].notes == ("no example: drawn from the text alone",)


def test_an_example_grounds_by_its_caption(server: Server) -> None:
    pair = Example("p", "a green hat")
    drawer(server).generate([image_request(1, examples=(pair,))])
    assert server.seen[0].fields["prompt"] == "a red hat, similar to: a green hat"


def test_an_example_grounds_by_its_image_as_an_edit(
    server: Server, pictures: Callable[..., Image.Image]
) -> None:
    pair = Example("p", "a green hat", pictures(1))
    (answer,) = drawer(server, grounding="edit").generate([image_request(1, examples=(pair,))])
    (seen,) = server.seen
    assert seen.path == "/v1/images/edits"
    assert seen.headers["Content-Type"].startswith("multipart/form-data")
    start = seen.body.index(b"\x89PNG")
    sent = Image.open(io.BytesIO(seen.body[start:]))
    assert np.array_equal(np.asarray(sent), np.asarray(pictures(1)))
    assert answer.candidates[0].prompt == "a red hat"


def test_fields_that_a_server_does_not_know_can_be_left_out(server: Server) -> None:
    asked = drawer(server, response_format=None, send_seed=False, extra={"quality": "low"})
    server.answer = Server._proper(
        type("Seen", (), {"path": "/v1/images/generations", "fields": {"seed": 1}})()
    )
    asked.generate([image_request(1)])
    fields = server.seen[0].fields
    assert set(fields) == {"model", "prompt", "n", "size", "quality"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([{"url": "http://169.254.169.254/"}], "holds a url instead of b64_json"),
        ([{"b64_json": "no base64!"}], "can't be decoded"),
        ([{"b64_json": base64.b64encode(b"GIF89a").decode()}], "can't be decoded"),
        ([], "holds no data"),
        (None, "holds no data"),
    ],
)
def test_an_answer_without_an_image_fails_the_row(data: Any, words: str, server: Server) -> None:
    server.answer = {"data": data}
    (answer,) = drawer(server).generate([image_request(1)])
    assert answer.error is not None
    assert words in answer.error


def test_an_image_past_the_pixel_limit_is_refused(server: Server) -> None:
    (answer,) = drawer(server, max_pixels=1000).generate([image_request(1)])
    assert answer.error == "the image has 32 x 32 pixels; max_pixels is 1000"


def test_a_safety_refusal_is_a_candidate_without_an_image(server: Server) -> None:
    body = {"error": {"code": "moderation_blocked", "message": "not this"}}
    server.script.append((400, {}, json.dumps(body).encode()))
    (answer,) = drawer(server).generate([image_request(1)])
    assert answer.error is None
    assert answer.candidates[0].image is None
    assert answer.candidates[0].notes[-1].startswith("refused: ")
