"""Captions by any chat model of transformers that sees images, the retrieved pairs as earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from generators.base import Candidate, Dropped, Example, Needs
from generators.batching import Failed
from generators.checkpoint_captioner import CheckpointCaptioner
from generators.checkpoints import CheckpointSettings
from generators.grounding import NO_ROOM, usable_examples
from generators.pictures import shrunk
from generators.prompts import before_stop, plain
from generators.sampling import SamplingSettings, draw_tokens, keep_special_tokens

if TYPE_CHECKING:
    import torch


class VlmSettings(SamplingSettings, CheckpointSettings):
    """Settings of `VlmCaptioner`."""

    kind: Literal["vlm"] = Field("vlm", description="A chat image-text model of transformers.")
    model: str = Field(
        "Qwen/Qwen2.5-VL-3B-Instruct", description="Model id, or a folder in the same format."
    )
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that lies beside the weights; only for models you trust.",
    )
    prompt: str = Field(
        "Please write a caption of the image.",
        min_length=1,
        description="What is asked with every image.",
    )
    system: str | None = Field(None, description="System message ahead of the turns, if any.")
    longest_side: int = Field(
        768,
        ge=16,
        description="Images are shrunk to this many pixels before the model's own steps.",
    )
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="Most tokens of the turns; None takes what the model has room for."
    )
    background: str = Field("white", description="What shows through a transparent image.")

    def needs(self) -> Needs:
        """Both halves: each example is a turn of the conversation."""
        return Needs(side=self.longest_side)


@dataclass(frozen=True, slots=True)
class _Job:
    """One caption to draw."""

    row: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Conversation:
    """The turns of a row, the examples that stand in them, and those that don't."""

    messages: list[dict[str, Any]]
    shown: tuple[str, ...]
    dropped: tuple[Dropped, ...]


class VlmCaptioner(CheckpointCaptioner[VlmSettings, _Job]):
    """Captions of images by a chat image-text model.

    `load` also refuses a model without a chat template, and one that needs code of its own while
    ``trust_remote_code`` is off.
    """

    Settings = VlmSettings

    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        trust = self.settings.trust_remote_code
        processor = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust
        )
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust,
        )
        return model, processor

    def _prepare(self) -> None:
        if not getattr(self._processor, "chat_template", None):
            raise ValueError(
                f"model {self.settings.model!r} has no chat template; kind vlm needs a chat model"
            )
        model, tokenizer = self._model, self._processor.tokenizer
        # New tokens follow the last position, so a batch is padded on the left.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        keep_special_tokens(
            model,
            model.generation_config,
            model.config.get_text_config(decoder=True),
            tokenizer,
            eos_token_ids=[] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id],
        )

    def _jobs(self) -> list[_Job]:
        return [
            _Job(row, seed) for row, request in enumerate(self._requests) for seed in request.seeds
        ]

    def _draw(self, jobs: list[_Job]) -> list[Candidate | Failed]:
        # Rows that want as many captions go through the model together.
        seeds: dict[int, list[int]] = {}
        for job in jobs:
            seeds.setdefault(job.row, []).append(job.seed)
        drawn: dict[int, list[Candidate | Failed]] = {}
        for copies in sorted({len(of_row) for of_row in seeds.values()}):
            rows = [row for row, of_row in seeds.items() if len(of_row) == copies]
            drawn.update(self._caption(rows, [seeds[row] for row in rows]))
        return [candidate for row in seeds for candidate in drawn[row]]

    def _caption(
        self, rows: Sequence[int], seeds: Sequence[Sequence[int]]
    ) -> dict[int, list[Candidate | Failed]]:
        """As many captions for each of the rows."""
        import torch

        turns = [self._turns(row) for row in rows]
        inputs = self._encode([one.messages for one in turns])
        copies = len(seeds[0])
        answers: dict[int, list[Candidate | Failed]] = {}
        if places := self._too_long(inputs):
            fitting = {row: (one, own) for row, one, own in zip(rows, turns, seeds, strict=True)}
            for row in (rows[place] for place in places):
                shorter = self._shortened(row)
                if isinstance(shorter, Failed):
                    del fitting[row]
                    answers[row] = [shorter] * copies
                else:
                    fitting[row] = shorter, fitting[row][1]
            if not fitting:
                return answers
            rows, turns = list(fitting), [one for one, _ in fitting.values()]
            seeds = [own for _, own in fitting.values()]
            inputs = self._encode([one.messages for one in turns])
        with torch.inference_mode():
            tokens, sound = draw_tokens(
                self._model,
                self.settings,
                [seed for of_row in seeds for seed in of_row],
                copies=copies,
                **inputs.to(self._model.device, self._model.dtype),
            )
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for place, row in enumerate(rows):
            turn, own = turns[place], slice(place * copies, (place + 1) * copies)
            prompt = self._processor.apply_chat_template(
                turn.messages, tokenize=False, add_generation_prompt=True
            )
            answers[row] = [
                Candidate(
                    seed,
                    prompt,
                    text=before_stop(text, self.settings.stops),
                    shown=turn.shown,
                    dropped=turn.dropped,
                )
                if fine
                else self._not_finite()
                for seed, text, fine in zip(seeds[place], texts[own], sound[own], strict=True)
            ]
        return answers

    def _turns(self, row: int, most_examples: int | None = None) -> _Conversation:
        """The conversation of a row, with at most so many of its examples, the best ones."""
        request = self._requests[row]
        usable, dropped = usable_examples(request.examples, self.settings.needs())
        kept = usable[:most_examples]
        messages: list[dict[str, Any]] = []
        if self.settings.system:
            messages.append(_message("system", self._text(self.settings.system)))
        for example in kept:
            messages += self._example_turns(example)
        messages.append(self._question(request.image))
        without_room = tuple(Dropped(example.id, NO_ROOM) for example in usable[len(kept) :])
        return _Conversation(
            messages, tuple(example.id for example in kept), (*dropped, *without_room)
        )

    def _example_turns(self, example: Example) -> list[dict[str, Any]]:
        answer = _message("assistant", self._text(example.text.strip()))
        return [self._question(example.image), answer]

    def _question(self, image: Any) -> dict[str, Any]:
        picture = shrunk(image, self.settings.longest_side, self.settings.background)
        return _message(
            "user",
            {"type": "image", "image": picture},
            self._text(self.settings.prompt),
        )

    def _text(self, text: str) -> dict[str, Any]:
        """A part of a turn; a control token that it spells is text in the record, too."""
        return {"type": "text", "text": plain(text, [self._processor.tokenizer])}

    def _encode(self, conversations: Sequence[list[dict[str, Any]]]) -> Any:
        """Token ids, masks and pixels of conversations, padded on the left."""
        return self._processor.apply_chat_template(
            list(conversations),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            # Texts are plain already (`_text`); this is for marks that a template makes of their words.
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True},
        )

    def _limit(self) -> int | None:
        """Most tokens of a conversation."""
        text = self._model.config.get_text_config(decoder=True)
        positions = getattr(text, "max_position_embeddings", None)
        room = None if positions is None else positions - self.settings.max_new_tokens
        limits = [limit for limit in (room, self.settings.max_prompt_tokens) if limit is not None]
        return min(limits, default=None)

    def _too_long(self, inputs: Any) -> dict[int, int]:
        """Tokens of the conversations that have more of them than there is room for, by place."""
        limit = self._limit()
        if limit is None:
            return {}
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return {place: length for place, length in enumerate(lengths) if length > limit}

    def _shortened(self, row: int) -> _Conversation | Failed:
        """The conversation of a row with as many of its best examples as there is room for.

        Failed, where there is none for the row's own picture and question.
        """
        tokens = 0
        for count in range(len(self._turns(row).shown), -1, -1):
            turns = self._turns(row, count)
            found = self._too_long(self._encode([turns.messages]))
            if not found:
                return turns
            tokens = found[0]
        return Failed(
            f"the picture and its question are {tokens} tokens, and there is room for {self._limit()};"
            " lower longest_side, or raise max_prompt_tokens"
        )


def _message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}
