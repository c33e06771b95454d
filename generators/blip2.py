"""Captions by BLIP-2 (Li et al. 2023), with an OPT (decoder-only) or a T5 (encoder-decoder) inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.base import Candidate, Example
from generators.batching import Failed
from generators.blip2_settings import Blip2Settings
from generators.checkpoint_captioner import CheckpointCaptioner
from generators.pictures import bounded
from generators.prompts import Prompt, before_stop, fit, plain, token_count
from generators.sampling import draw_tokens, keep_special_tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Job:
    """One caption to draw: which request, by which prompt, by which seed."""

    row: int
    prompt: Prompt
    seed: int


class Blip2Captioner(CheckpointCaptioner[Blip2Settings, _Job]):
    """Captions of images by a BLIP-2 checkpoint."""

    Settings = Blip2Settings

    def __init__(self, settings: Blip2Settings, paths: Mapping[str, Path]) -> None:
        super().__init__(settings, paths)
        self._seen: dict[int, torch.Tensor] = {}

    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        processor = Blip2Processor.from_pretrained(folder, local_files_only=True)
        model: Any = Blip2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
        # Parts that a checkpoint keeps in half precision would clash with the rest.
        return model.float() if dtype == torch.float32 else model, processor

    def _prepare(self) -> None:
        model, tokenizer = self._model, self._processor.tokenizer
        keep_special_tokens(
            model.language_model,
            model.generation_config,
            model.language_model.generation_config,
            model.config.text_config,
            tokenizer,
            eos_token_ids=[] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id],
        )
        room, wanted = self._prompt_limit(), token_count(tokenizer, self.settings.template)
        if room is not None and wanted > room:
            raise ValueError(
                f"template of {wanted} tokens does not fit; "
                f"the model has room for {room} beside max_new_tokens {self.settings.max_new_tokens}"
            )

    def _jobs(self) -> list[_Job]:
        jobs: list[_Job] = []
        for row, request in enumerate(self._requests):
            prompt = self.prompt(request.examples)
            jobs += [_Job(row, prompt, seed) for seed in request.seeds]
        return jobs

    def _forget(self) -> None:
        self._seen = {}

    def prompt(self, examples: Sequence[Example]) -> Prompt:
        """The prompt with the captions of these examples, cut to what the model has room for."""
        tokenizers = [self._processor.tokenizer]
        return fit(
            lambda _, captions: self.settings.render(captions),
            "",
            [replace(example, text=plain(example.text, tokenizers)) for example in examples],
            tokenizers,
            self._prompt_limit(),
        )

    def _prompt_limit(self) -> int | None:
        """Most tokens of a prompt, or None where positions are relative and nothing is set."""
        text = self._model.config.text_config
        room = None
        if not text.is_encoder_decoder:
            positions = getattr(text, "max_position_embeddings", None)
            if positions is not None:
                queries = self._model.config.num_query_tokens
                room = positions - queries - self.settings.max_new_tokens
        else:
            # T5 counts positions relatively; its tokenizer knows the length it was trained with.
            trained = self._processor.tokenizer.model_max_length
            room = trained if trained < 1_000_000 else None
        limits = [limit for limit in (room, self.settings.max_prompt_tokens) if limit is not None]
        return min(limits, default=None)

    def _draw(self, jobs: list[_Job]) -> list[Candidate | Failed]:
        import torch

        rows = list(dict.fromkeys(job.row for job in jobs))
        place = {row: number for number, row in enumerate(rows)}
        prompts = {job.row: job.prompt for job in jobs}
        with torch.inference_mode():
            features = self._image_features(rows)
            embeddings, mask = self._inputs(features, [prompts[row].text for row in rows])
            each = torch.tensor([place[job.row] for job in jobs], device=embeddings.device)
            tokens, sound = self._answer(embeddings, mask, each, [job.seed for job in jobs])
        return self._candidates(jobs, tokens, sound)

    def _candidates(
        self, jobs: Sequence[_Job], tokens: Any, sound: Sequence[bool]
    ) -> list[Candidate | Failed]:
        """What was drawn for each job, [jobs, tokens]; failed where its scores were not `sound`."""
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Candidate(
                job.seed,
                job.prompt.text,
                text=self._clean(text, job),
                notes=job.prompt.notes,
                shown=job.prompt.shown,
                dropped=job.prompt.dropped,
            )
            if fine
            else self._not_finite()
            for job, text, fine in zip(jobs, texts, sound, strict=True)
        ]

    def _image_features(self, rows: Sequence[int]) -> torch.Tensor:
        """Query outputs in the language model's space, [rows, queries, width].

        An image is encoded once for its n captions, also where they fall into two batches.
        """
        import torch

        new = [row for row in rows if row not in self._seen]
        self._seen = {row: self._seen[row] for row in rows if row in self._seen}
        if new:
            images = [bounded(self._requests[row].image, self.settings.background) for row in new]
            pixels = self._processor.image_processor(images=images, return_tensors="pt")
            pixels = pixels["pixel_values"].to(self._model.device, self._model.dtype)
            features = self._model.get_image_features(pixels, return_dict=True).pooler_output
            self._seen.update(zip(new, features, strict=True))
        return torch.stack([self._seen[row] for row in rows])

    def _inputs(
        self, features: torch.Tensor, prompts: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [rows, tokens, width] of image and prompt, and their mask [rows, tokens].

        A decoder-only model continues the last position, so its padding goes to the left; an
        encoder-decoder reads from the left, so there it goes to the right. Padding on the wrong side
        gives other captions in a batch than alone.
        """
        import torch

        model, tokenizer = self._model, self._processor.tokenizer
        ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        queries = features.shape[1]
        longest = max(len(row) for row in ids)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        left = not model.config.text_config.is_encoder_decoder
        token_rows, mask_rows, image_rows = [], [], []
        for row in ids:
            gap = longest - len(row)
            before, after = (gap, 0) if left else (0, gap)
            token_rows.append([pad] * (before + queries) + row + [pad] * after)
            mask_rows.append([0] * before + [1] * (queries + len(row)) + [0] * after)
            image_rows.append([False] * before + [True] * queries + [False] * (len(row) + after))
        device = features.device
        embeddings = model.get_input_embeddings()(torch.tensor(token_rows, device=device))
        places = torch.tensor(image_rows, device=device)[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(places, features.to(embeddings.dtype))
        return embeddings, torch.tensor(mask_rows, device=device)

    def _answer(
        self,
        embeddings: torch.Tensor,
        mask: torch.Tensor,
        each: torch.Tensor,
        seeds: Sequence[int],
    ) -> tuple[torch.Tensor, list[bool]]:
        """New tokens [captions, tokens], and whether they are sound.

        ``each`` tells the row of every caption.
        """
        language_model = self._model.language_model
        if not self._model.config.text_config.is_encoder_decoder:
            return draw_tokens(
                language_model,
                self.settings,
                seeds,
                inputs_embeds=embeddings[each],
                attention_mask=mask[each],
            )
        encoded = language_model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask)
        encoded.last_hidden_state = encoded.last_hidden_state[each]
        return draw_tokens(
            language_model,
            self.settings,
            seeds,
            encoder_outputs=encoded,
            attention_mask=mask[each],
        )

    def _clean(self, text: str, job: _Job) -> str:
        """The caption alone, without the next one that some models go on to write."""
        after = len(job.prompt.shown) + 2
        return before_stop(text, [stop.format(after=after) for stop in self.settings.stops])
