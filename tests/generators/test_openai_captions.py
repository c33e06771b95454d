"""What is asked of a chat model behind a server, and how its answers are read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from generators.base import CaptionRequest, Example
from tests.generators.server import Server, captioner


def test_the_request_holds_turns_limits_and_a_seed_of_its_own(
    server: Server, ask: Callable[..., CaptionRequest], pictures: Callable[..., Image.Image]
) -> None:
    wide = Example("pair-1", "a red hat", pictures(9, (400, 100)))
    request = ask(2**62 + 5, examples=(wide, Example("pair-2", "no image")))
    (answer,) = captioner(server, longest_side=200, system="Be short.").generate([request])
    (seen,) = server.seen
    asked = "Please write a caption of the image."
    assert answer.candidates[0].prompt == f"Be short.\n{asked}\na red hat\n{asked}"
    fields = seen.fields
    assert seen.path == "/v1/chat/completions"
    assert fields["seed"] == 5
    assert (fields["max_tokens"], fields["top_p"], fields["temperature"]) == (40, 0.9, 1.0)
    roles = [message["role"] for message in fields["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert fields["messages"][2]["content"] == "a red hat"
    address = fields["messages"][1]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))))
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
