"""Captions by any OpenAI-compatible server (vLLM, a hosted one), over its chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from generators.base import Candidate, CaptionRequest, Example, Generated
from generators.service import (
    SEED_MASK,
    ContentRefused,
    ServiceError,
)
from generators.service_generator import ServiceGenerator, data_url
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
    longest_side: int = Field(768, ge=16, description="Images are shrunk to this many pixels.")
    background: str = Field("white", description="What shows through a transparent image.")


class OpenAICaptioner(ServiceGenerator):
    """Captions of images by a chat model behind a server, the retrieved pairs as earlier turns.

    Each candidate is a request of its own with a seed of its own: servers that heed seeds give the
    same captions again.
    """

    Settings = OpenAICaptionSettings
    settings: OpenAICaptionSettings

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """Ask for a caption for every seed of every request.

        Raises
        ------
        ServiceRefused
            When the server takes no request of ours: the key, the address, the quota.
        """
        return self._answers(requests, self._ask)

    def _ask(self, request: CaptionRequest, seed: int) -> Candidate:
        settings = self.settings
        fields = {
            "model": settings.model,
            "messages": self._messages(request),
            settings.token_field: settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": seed & SEED_MASK,
            **settings.extra,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        try:
            answer = self.service.post("chat/completions", fields)
        except ContentRefused as refusal:
            return Candidate(seed, settings.prompt, notes=(f"refused: {refusal}",))
        return self._candidate(seed, answer)

    def _candidate(self, seed: int, answer: dict[str, Any]) -> Candidate:
        """The caption in an answer.

        Raises
        ------
        ServiceError
            When it holds no choice with a message.
        """
        prompt = self.settings.prompt
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
            reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ServiceError("the answer holds no choices[0].message") from error
        if isinstance(content, list):
            parts = [part.get("text", "") for part in content if isinstance(part, dict)]
            content = "".join(parts)
        if refusal or reason == "content_filter":
            note = str(refusal or "content filter")
            return Candidate(seed, prompt, notes=(f"refused: {note}",))
        if content is not None and not isinstance(content, str):
            raise ServiceError(f"the message holds {type(content).__name__} instead of text")
        notes = (f"cut at {self.settings.max_new_tokens} tokens",) if reason == "length" else ()
        # Null content is an empty caption; selection rejects it by that name.
        return Candidate(seed, prompt, text=(content or "").strip(), notes=notes)

    def _messages(self, request: CaptionRequest) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.settings.system:
            messages.append({"role": "system", "content": self.settings.system})
        for example in request.examples:
            messages += self._turns(example)
        messages.append(self._question(request.image))
        return messages

    def _turns(self, example: Example) -> list[dict[str, Any]]:
        if example.image is None:
            return []
        answer = {"role": "assistant", "content": example.text.strip()}
        return [self._question(example.image), answer]

    def _question(self, image: Any) -> dict[str, Any]:
        address = data_url(image, self.settings.longest_side, self.settings.background)
        return {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": address}},
                {"type": "text", "text": self.settings.prompt},
            ],
        }
