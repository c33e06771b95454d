"""Captions by any chat model of transformers that sees images, the retrieved pairs as earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.base import Candidate, Example
from generators.checkpoint_captioner import CheckpointCaptioner
from generators.pictures import shrunk
from generators.prompts import before_stop
from generators.sampling import draw_tokens, keep_special_tokens
from generators.vlm_settings import VlmSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Job:
    """One caption to draw."""

    row: int
    seed: int


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

    def _draw(self, jobs: list[_Job]) -> list[Candidate]:
        # Rows that want as many captions go through the model together.
        seeds: dict[int, list[int]] = {}
        for job in jobs:
            seeds.setdefault(job.row, []).append(job.seed)
        drawn: dict[int, list[Candidate]] = {}
        for copies in sorted({len(of_row) for of_row in seeds.values()}):
            rows = [row for row, of_row in seeds.items() if len(of_row) == copies]
            drawn.update(self._caption(rows, [seeds[row] for row in rows]))
        return [candidate for row in seeds for candidate in drawn[row]]

    def _caption(
        self, rows: Sequence[int], seeds: Sequence[Sequence[int]]
    ) -> dict[int, list[Candidate]]:
        """As many captions for each of the rows."""
        import torch

        turns = [self._turns(row) for row in rows]
        inputs = self._encode([messages for messages, _ in turns])
        if places := self._too_long(inputs):
            for place in places:
                turns[place] = self._shortened(rows[place])
            inputs = self._encode([messages for messages, _ in turns])
        copies = len(seeds[0])
        with torch.inference_mode():
            tokens = draw_tokens(
                self._model,
                self.settings,
                [seed for of_row in seeds for seed in of_row],
                copies=copies,
                **inputs.to(self._model.device, self._model.dtype),
            )
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        answers: dict[int, list[Candidate]] = {}
        for place, row in enumerate(rows):
            messages, notes = turns[place]
            prompt = self._processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            answers[row] = [
                Candidate(seed, prompt, text=before_stop(text, self.settings.stops), notes=notes)
                for seed, text in zip(
                    seeds[place], texts[place * copies : (place + 1) * copies], strict=True
                )
            ]
        return answers

    def _turns(
        self, row: int, most_examples: int | None = None
    ) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """The conversation of a row, and what was left out of it."""
        request = self._requests[row]
        usable = [example for example in request.examples if example.image is not None]
        notes = [
            f"example {example.id} left out: no image"
            for example in request.examples
            if example.image is None
        ]
        kept = usable[:most_examples]
        notes += [f"example {example.id} left out: no room" for example in usable[len(kept) :]]
        messages: list[dict[str, Any]] = []
        if self.settings.system:
            messages.append(_message("system", {"type": "text", "text": self.settings.system}))
        for example in kept:
            messages += self._example_turns(example)
        messages.append(self._question(request.image))
        return messages, tuple(notes)

    def _example_turns(self, example: Example) -> list[dict[str, Any]]:
        answer = _message("assistant", {"type": "text", "text": example.text.strip()})
        return [self._question(example.image), answer]

    def _question(self, image: Any) -> dict[str, Any]:
        picture = shrunk(image, self.settings.longest_side, self.settings.background)
        return _message(
            "user",
            {"type": "image", "image": picture},
            {"type": "text", "text": self.settings.prompt},
        )

    def _encode(self, conversations: Sequence[list[dict[str, Any]]]) -> Any:
        """Token ids, masks and pixels of conversations, padded on the left."""
        return self._processor.apply_chat_template(
            list(conversations),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            # A caption that holds "<image>" or an end-of-turn mark stays text.
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

    def _too_long(self, inputs: Any) -> list[int]:
        """Places in the batch whose conversation has more tokens than there is room for."""
        limit = self._limit()
        if limit is None:
            return []
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [place for place, length in enumerate(lengths) if length > limit]

    def _shortened(self, row: int) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """The conversation of a row with as many of its best examples as there is room for."""
        for count in range(len(self._requests[row].examples) - 1, 0, -1):
            turns = self._turns(row, count)
            if not self._too_long(self._encode([turns[0]])):
                return turns
        return self._turns(row, 0)


def _message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}
