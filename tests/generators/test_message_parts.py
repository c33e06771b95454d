"""A chat message in parts, of which some hold no text: the caption is what the others say."""

from __future__ import annotations

from typing import Any

import pytest

from generators.openai_captions import OpenAICaptioner, OpenAICaptionSettings
from generators.service_question import Question


@pytest.mark.parametrize("odd", [None, 3, {"value": "a hat"}, ["a hat"]])
def test_a_part_that_holds_no_text_is_left_out(odd: Any) -> None:
    settings = OpenAICaptionSettings(
        model="m", base_url="http://127.0.0.1:1/v1", send_data=True, api_key_env=None
    )
    captioner = OpenAICaptioner(settings)
    content = [{"type": "thinking", "text": odd}, {"type": "text", "text": "a red hat"}]
    answer = {"choices": [{"message": {"content": content}}]}
    made = captioner._candidate(1, Question("chat/completions", {}, "a prompt"), answer)
    assert made.text == "a red hat"
