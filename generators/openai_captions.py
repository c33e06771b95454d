"""Captions by any OpenAI-compatible server (vLLM, a hosted one), over its chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from generators.base import Candidate, CaptionRequest, Example, Needs
from generators.grounding import usable_examples
from generators.sent_pictures import Pictures
from generators.service_errors import ServiceError
from generators.service_generator import ServiceGenerator
from generators.service_question import Question
from generators.service_settings import ServiceSettings


class OpenAICaptionSettings(ServiceSettings):
    """Settings of `OpenAICaptioner`."""

    prompt: str = Field(
        "Please write a caption of the image.",
        min_length=1,
        description="What is asked with every image.",
    )
    system: str | None = Field(None, description="System message ahead of the turns, if any.")
    max_new_tokens: int = Field(40, ge=1, description="Most tokens that a caption may have.")
    token_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the server calls that limit; newer models want the second."
    )
    temperature: float | None = Field(
        1.0, ge=0, description="Below 1 safer, above 1 more varied; None leaves it to the server."
    )
    top_p: float | None = Field(
        0.9, gt=0, le=1, description="Nucleus of the draw; None leaves it to the server."
    )

    def needs(self) -> Needs:
        """Both halves: each example is a turn of the conversation."""
        return Needs(side=self.longest_side)


class OpenAICaptioner(ServiceGenerator[CaptionRequest]):
    """Captions of images by a chat model behind a server, the retrieved pairs as earlier turns."""

    Settings = OpenAICaptionSettings
    settings: OpenAICaptionSettings

    def _question(self, request: CaptionRequest, pictures: Pictures) -> Question:
        settings = self.settings
        usable, dropped = usable_examples(request.examples, settings.needs())
        fields = {
            "messages": self._messages(request, usable, pictures),
            settings.token_field: settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        shown = tuple(example.id for example in usable)
        prompt = self._prompt(usable)
        return Question("chat/completions", fields, prompt, shown=shown, dropped=dropped)

    def _prompt(self, examples: Sequence[Example]) -> str:
        """What is said in the conversation, a line or more a turn."""
        settings = self.settings
        said = [settings.system] if settings.system else []
        for example in examples:
            said += [settings.prompt, example.text.strip()]
        return "\n".join([*said, settings.prompt])

    def _candidate(self, seed: int, question: Question, answer: dict[str, Any]) -> Candidate:
        """The caption in an answer.

        Raises
        ------
        ServiceError
            When it holds no choice with a message.
        """
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
            reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ServiceError("the answer holds no choices[0].message") from error
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            # A part that is no text (reasoning, a picture) may hold null or an object there.
            content = "".join(part for part in parts if isinstance(part, str))
        if refusal or reason == "content_filter":
            note = str(refusal or "content filter")
            return question.candidate(seed, f"refused: {note}")
        if content is not None and not isinstance(content, str):
            raise ServiceError(f"the message holds {type(content).__name__} instead of text")
        notes = (f"cut at {self.settings.max_new_tokens} tokens",) if reason == "length" else ()
        # Null content is an empty caption; selection rejects it by that name.
        return question.candidate(seed, *notes, text=(content or "").strip())

    def _messages(
        self, request: CaptionRequest, examples: Sequence[Example], pictures: Pictures
    ) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.settings.system:
            messages.append({"role": "system", "content": self.settings.system})
        for example in examples:
            assert example.image is not None
            messages += [
                self._turn(pictures.data_url(example.image, example.file)),
                {"role": "assistant", "content": example.text.strip()},
            ]
        messages.append(self._turn(pictures.data_url(request.image, request.file)))
        return messages

    def _turn(self, address: str) -> dict[str, Any]:
        return {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": address}},
                {"type": "text", "text": self.settings.prompt},
            ],
        }
