"""Captions by BLIP-2 (Li et al. 2023), with an OPT (decoder-only) or a T5 (encoder-decoder) inside."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.base import Candidate, CaptionRequest, Generated
from generators.batching import BatchRunner, collect, seeds_together
from generators.blip2_settings import Blip2Settings
from generators.checkpoints import loading, local_folder
from generators.device import (
    module_bytes,
    release_memory,
    resolve_device,
    resolve_dtype,
)
from generators.pictures import on_ground
from generators.prompts import Prompt, before_stop, fit, token_count
from generators.sampling import draw_tokens, keep_special_tokens

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    """One caption to draw: which request, by which prompt, by which seed."""

    row: int
    prompt: Prompt
    seed: int


class Blip2Captioner:
    """Captions of images by a BLIP-2 checkpoint.

    Parameters
    ----------
    settings : Blip2Settings
    paths : mapping
        ``model`` -> local folder of the checkpoint.
    """

    Settings = Blip2Settings

    def __init__(self, settings: Blip2Settings, paths: Mapping[str, Path]) -> None:
        self.settings = settings
        self.paths = paths
        self._model: Any = None
        self._processor: Any = None
        self._runner: BatchRunner[_Job, Candidate] = BatchRunner(self._draw, settings.batch_size)
        self._requests: Sequence[CaptionRequest] = ()
        self._seen: dict[int, torch.Tensor] = {}

    def load(self) -> None:
        """Load model and processor, once.

        Raises
        ------
        ValueError
            When the folder isn't a BLIP-2 checkpoint in safetensors, or the prompt has no room in it.
        """
        if self._model is not None:
            return
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        started = time.monotonic()
        folder = local_folder(self.paths, "model", "config.json")
        device = resolve_device(self.settings.device)
        dtype = resolve_dtype(self.settings.dtype, device)
        with loading():
            processor = Blip2Processor.from_pretrained(folder, local_files_only=True)
            model: Any = Blip2ForConditionalGeneration.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True
            )
        if dtype == torch.float32:
            # Parts that a checkpoint keeps in half precision would clash with the rest.
            model = model.float()
        model.to(device).eval()
        tokenizer = processor.tokenizer
        keep_special_tokens(
            model.language_model,
            model.generation_config,
            model.language_model.generation_config,
            model.config.text_config,
            tokenizer,
            eos_token_ids=[] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id],
        )
        self._model, self._processor = model, processor
        room = self._prompt_limit()
        if room is not None and token_count(tokenizer, self.settings.template) > room:
            self.close()
            raise ValueError(
                f"template of {token_count(tokenizer, self.settings.template)} tokens does not fit; "
                f"the model has room for {room} beside max_new_tokens {self.settings.max_new_tokens}"
            )
        logger.info(
            "loaded captioner %s on %s in %s: %.2f GB, %.1f s",
            self.settings.model,
            device,
            str(dtype).removeprefix("torch."),
            self.memory() / 1e9,
            time.monotonic() - started,
        )

    def close(self) -> None:
        """Drop model and processor and give their memory back."""
        self._model = self._processor = None
        self._seen = {}
        release_memory()

    def memory(self) -> int:
        """Bytes of the weights; 0 before `load`."""
        return 0 if self._model is None else module_bytes([self._model])

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """Draw a caption for every seed of every request.

        A row whose caption does not fit into memory even alone gets an error; the others go on.
        """
        self.load()
        self._requests, self._seen = requests, {}
        jobs: list[_Job] = []
        for row, request in enumerate(requests):
            prompt = self.prompt([example.text for example in request.examples])
            jobs += [_Job(row, prompt, seed) for seed in request.seeds]
        try:
            drawn = iter(self._runner.run(jobs, together=seeds_together(requests)))
        finally:
            self._requests, self._seen = (), {}
        return [
            collect(request.row_id, [next(drawn) for _ in request.seeds]) for request in requests
        ]

    def prompt(self, examples: Sequence[str]) -> Prompt:
        """The prompt with these example captions, cut to what the model has room for."""
        return fit(
            lambda _, examples: self.settings.render(examples),
            "",
            examples,
            [self._processor.tokenizer],
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

    def _draw(self, jobs: list[_Job]) -> list[Candidate]:
        """One batch of captions."""
        import torch

        rows = list(dict.fromkeys(job.row for job in jobs))
        place = {row: number for number, row in enumerate(rows)}
        prompts = {job.row: job.prompt for job in jobs}
        with torch.inference_mode():
            features = self._image_features(rows)
            embeddings, mask = self._inputs(features, [prompts[row].text for row in rows])
            each = torch.tensor([place[job.row] for job in jobs], device=embeddings.device)
            tokens = self._answer(embeddings, mask, each, [job.seed for job in jobs])
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Candidate(
                job.seed,
                job.prompt.text,
                text=self._clean(text, job),
                notes=job.prompt.notes,
            )
            for job, text in zip(jobs, texts, strict=True)
        ]

    def _image_features(self, rows: Sequence[int]) -> torch.Tensor:
        """Query outputs in the language model's space, [rows, queries, width].

        An image is encoded once for its n captions, also where they fall into two batches.
        """
        import torch

        new = [row for row in rows if row not in self._seen]
        self._seen = {row: self._seen[row] for row in rows if row in self._seen}
        if new:
            images = [on_ground(self._requests[row].image, self.settings.background) for row in new]
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
    ) -> torch.Tensor:
        """New tokens [captions, tokens]; ``each`` tells the row of every caption."""
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
        after = len(self._requests[job.row].examples) + 2
        return before_stop(text, [stop.format(after=after) for stop in self.settings.stops])
