"""What is asked of an image model behind a server, and how its answers are read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from email import message_from_bytes
from email.policy import HTTP
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from generators.base import Example, ImageRequest
from generators.openai_images import OpenAIImageGenerator, OpenAIImageSettings
from tests.generators.server import Server


def drawer(server: Server, **settings: Any) -> OpenAIImageGenerator:
    return OpenAIImageGenerator(OpenAIImageSettings(**server.settings(**settings)))


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
    asked = drawer(server, grounding="edit", lossless=True)
    (answer,) = asked.generate([image_request(1, examples=(pair,))])
    (seen,) = server.seen
    assert seen.path == "/v1/images/edits"
    assert seen.headers["Content-Type"].startswith("multipart/form-data")
    start = seen.body.index(b"\x89PNG")
    sent = Image.open(io.BytesIO(seen.body[start:]))
    assert np.array_equal(np.asarray(sent), np.asarray(pictures(1)))
    assert answer.candidates[0].prompt == "a red hat"


def test_the_fields_of_an_edit_are_those_of_a_form(
    server: Server, pictures: Callable[..., Image.Image]
) -> None:
    pair = Example("p", "a green hat", pictures(1))
    extra = {"stream": False, "tags": ["ä", 2], "style": {"strength": 0.5}}
    drawer(server, grounding="edit", extra=extra).generate([image_request(7, examples=(pair,))])
    (seen,) = server.seen
    head = b"Content-Type: " + seen.headers["Content-Type"].encode() + b"\r\n\r\n"
    parts = list(message_from_bytes(head + seen.body, policy=HTTP).iter_parts())
    named = [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in parts
    ]
    texts = [(name, content.decode()) for name, file, content in named if file is None]
    assert texts == [
        ("seed", "7"),
        ("model", "tiny"),
        ("prompt", "a red hat"),
        ("n", "1"),
        ("size", "1024x1024"),
        ("response_format", "b64_json"),
        ("stream", "false"),
        ("tags[]", "ä"),
        ("tags[]", "2"),
        ("style[strength]", "0.5"),
    ]
    assert [(name, file) for name, file, _ in named if file] == [("image", "example.jpeg")]


def test_fields_that_a_server_does_not_know_can_be_left_out(server: Server) -> None:
    asked = drawer(server, response_format=None, send_seed=False, extra={"quality": "low"})
    (answer,) = asked.generate([image_request(1)])
    fields = server.seen[0].fields
    assert set(fields) == {"model", "prompt", "n", "size", "quality"}
    assert answer.candidates[0].notes[-1] == "drawn without our seed"


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


def test_an_image_of_an_unheard_of_format_or_with_a_bloated_text_fails_the_row(
    server: Server,
) -> None:
    """Pillow raises a plain ValueError for text chunks past its limit."""
    bloated = PngInfo()
    bloated.add_text("comment", "x" * 2_000_000, zip=True)
    for format, options in (("PNG", {"pnginfo": bloated}), ("TIFF", {})):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, format, **options)
        server.answer = {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}
        (answer,) = drawer(server).generate([image_request(1)])
        assert answer.error is not None
        assert answer.error.startswith("the answer's image can't be decoded: ")


def test_what_is_transparent_in_an_answer_stays_and_a_turned_one_is_upright(
    server: Server,
) -> None:
    clear, turned = Image.new("RGBA", (8, 4), (0, 0, 0, 0)), Image.new("RGB", (8, 4), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    found = []
    for image, options in ((clear, {}), (turned, {"exif": exif})):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        server.answer = {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}
        (answer,) = drawer(server).generate([image_request(1)])
        found.append(answer.candidates[0].image)
    assert [(one.mode, one.size) for one in found if one] == [("RGBA", (8, 4)), ("RGB", (4, 8))]


def test_a_prompt_that_the_server_wrote_instead_is_told(server: Server) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    for revised, notes in (
        ("a hat " * 1000, ["the server wrote another prompt: " + ("a hat " * 1000)[:2000] + "…"]),
        ("a hat", []),
        (None, []),
        (7, []),
    ):
        server.answer = {"data": [{"b64_json": image, "revised_prompt": revised}]}
        (answer,) = drawer(server).generate([ImageRequest("row", "a hat", (), (1,))])
        alone = "no example: drawn from the text alone"
        assert list(answer.candidates[0].notes) == [alone, *notes]


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
