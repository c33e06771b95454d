"""A small captioner: a decoder that reads cells of a picture and a prompt, and can point into the prompt.

What it says next is a mixture: of the decoder's own words, and of a copy of the prompt's tokens (See
et al. 2017, "Get to the point", eq. 8 and 9). A place of the prompt is found by what foretold it, so
that a word that stands only in an example can be taken from where the example says the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from generators.sampling import SamplingSettings

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Shape:
    """What a decoder is made of; `config.json` in its folder.

    Attributes
    ----------
    eyes : str
        The network that pictures are looked at with; see `eyes.open_eyes`.
    channels, cells : int
        Of what the eyes give of a picture, [cells, channels].
    vocabulary, end, pad : int
        Tokens, and which of them end a text and fill up a batch.
    positions : int
        Most cells and tokens together.
    """

    eyes: str
    channels: int
    cells: int
    vocabulary: int
    end: int
    pad: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    positions: int = 224
    pointer: int = 64
    dropout: float = 0.1


@dataclass(frozen=True)
class Memory:
    """What of a prompt can be copied.

    Attributes
    ----------
    keys : float [n, places, pointer]
    tokens : int [n, places]
    open : bool [n, places]
        Whether the place holds a token of the prompt.
    """

    keys: torch.Tensor
    tokens: torch.Tensor
    open: torch.Tensor

    def of(self, rows: torch.Tensor) -> Memory:
        """That of some rows."""
        return Memory(self.keys[rows], self.tokens[rows], self.open[rows])


class SightedDecoder(nn.Module):
    """The decoder with what joins it to the eyes; the eyes themselves are no part of it."""

    def __init__(self, shape: Shape) -> None:
        from transformers import OPTConfig, OPTForCausalLM

        super().__init__()
        self.shape = shape
        self.look = nn.Sequential(
            nn.LayerNorm(shape.channels), nn.Linear(shape.channels, shape.width)
        )
        self.decoder = OPTForCausalLM(
            OPTConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.width,
                word_embed_proj_dim=shape.width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                ffn_dim=4 * shape.width,
                max_position_embeddings=shape.positions,
                dropout=shape.dropout,
                bos_token_id=shape.end,
                eos_token_id=shape.end,
                pad_token_id=shape.pad,
            )
        )
        self.query = nn.Linear(shape.width, shape.pointer)
        self.key = nn.Linear(shape.width, shape.pointer)
        self.gate = nn.Linear(shape.width, 1)
        nn.init.constant_(self.gate.bias, -1.0)

    def read(
        self, cells: torch.Tensor, tokens: torch.Tensor, here: torch.Tensor, **more: Any
    ) -> Any:
        """The decoder's states over cells and text.

        Parameters
        ----------
        cells : float [n, cells, channels]
        tokens : int [n, length]
        here : bool [n, length]
            Which tokens are text. Those that fill up on the left come before the cells.
        """
        words = self.decoder.get_input_embeddings()(tokens)
        seen = self.look(cells.to(words.dtype))
        # Filled up on the left, as for generation, the cells would stand before the gap; attention
        # sees neither, and positions count what is there alone.
        present = torch.cat([here.new_ones(here.shape[0], cells.shape[1]), here], dim=1)
        return self.decoder.model(
            inputs_embeds=torch.cat([seen, words], dim=1), attention_mask=present.long(), **more
        )

    def remember(self, states: torch.Tensor, tokens: torch.Tensor, open: torch.Tensor) -> Memory:
        """What can be copied, from states [n, cells + length, width] over tokens [n, length]."""
        before = states[:, -tokens.shape[1] - 1 : -1]
        return Memory(self.key(before), tokens, open)

    def tell(self, states: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Log-probabilities [n, k, vocabulary] of what follows states [n, k, width]."""
        own, weight = self._own(states), self._pointed(states, memory)
        copied = torch.zeros_like(own).scatter_add_(
            2, memory.tokens[:, None].expand(weight.shape), weight
        )
        return self._mixed(states, own, copied)

    def tell_of(self, states: torch.Tensor, memory: Memory, tokens: torch.Tensor) -> torch.Tensor:
        """Of `tell` only what it says of tokens [n, k], which is quicker to learn by; [n, k]."""
        own = self._own(states).gather(2, tokens[..., None])[..., 0]
        same = memory.tokens[:, None] == tokens[..., None]
        copied = (self._pointed(states, memory) * same).sum(dim=-1)
        return self._mixed(states, own[..., None], copied[..., None])[..., 0]

    def _own(self, states: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.decoder.lm_head(states).float(), dim=-1)

    def _pointed(self, states: torch.Tensor, memory: Memory) -> torch.Tensor:
        """What share of the copy each place of the prompt has, [n, k, places]."""
        fit = self.query(states) @ memory.keys.transpose(1, 2) * self.shape.pointer**-0.5
        return torch.softmax(fit.float().masked_fill(~memory.open[:, None], -1e4), dim=-1)

    def _mixed(self, states: torch.Tensor, own: torch.Tensor, copied: torch.Tensor) -> torch.Tensor:
        gate, logsigmoid = self.gate(states).float(), nn.functional.logsigmoid
        return torch.logaddexp(
            own + logsigmoid(-gate), torch.log(copied.clamp_min(1e-9)) + logsigmoid(gate)
        )

    @torch.inference_mode()
    def speak(
        self,
        cells: torch.Tensor,
        prompts: Sequence[Sequence[int]],
        each: Sequence[int],
        seeds: Sequence[int],
        settings: SamplingSettings,
    ) -> tuple[list[list[int]], list[bool]]:
        """Texts drawn after prompts, each by its own seed.

        Parameters
        ----------
        cells : float [rows, cells, channels]
        prompts : tokens of each row's prompt
        each : the row of every text
        seeds : one for every text

        Returns
        -------
        tokens of each text without its end, and whether its scores were all finite
        """
        from transformers import (
            LogitsProcessorList,
            NoRepeatNGramLogitsProcessor,
            RepetitionPenaltyLogitsProcessor,
        )

        from generators.sampling import SeededSampling

        draw = SeededSampling(seeds, settings)
        rules = LogitsProcessorList()
        if settings.repetition_penalty != 1.0:
            rules.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
        if settings.no_repeat_ngram_size:
            rules.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
        rules.append(draw)
        device, rows = cells.device, torch.tensor(each, device=cells.device)
        longest = max(map(len, prompts))
        gaps = [longest - len(prompt) for prompt in prompts]
        tokens = torch.tensor(
            [[self.shape.pad] * gap + list(p) for gap, p in zip(gaps, prompts, strict=True)],
            device=device,
        )
        here = torch.arange(longest, device=device) >= torch.tensor(gaps, device=device)[:, None]
        read = self.read(cells, tokens, here, use_cache=True)
        memory = self.remember(self._unbroken(read, gaps, cells.shape[1]), tokens, here).of(rows)
        past, state = read.past_key_values, read.last_hidden_state[rows, -1]
        past.batch_select_indices(rows)
        present = torch.cat([here.new_ones(len(here), cells.shape[1]), here], dim=1)[rows]
        said = torch.empty((len(rows), 0), dtype=torch.long, device=device)
        ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        for _ in range(settings.max_new_tokens):
            scores = rules(said, self.tell(state[:, None], memory)[:, 0])
            drawn = scores.argmax(dim=-1).masked_fill(ended, self.shape.end)
            said = torch.cat([said, drawn[:, None]], dim=1)
            ended |= drawn == self.shape.end
            if bool(ended.all()):
                break
            present = torch.cat([present, present.new_ones(len(rows), 1)], dim=1)
            read = self.decoder.model(
                inputs_embeds=self.decoder.get_input_embeddings()(drawn[:, None]),
                attention_mask=present.long(),
                past_key_values=past,
                use_cache=True,
            )
            state = read.last_hidden_state[:, -1]
        sound = [True] * len(rows) if draw.unsound_ is None else (~draw.unsound_).tolist()
        return [self._to_end(text) for text in said.tolist()], sound

    def _unbroken(self, read: Any, gaps: Sequence[int], cells: int) -> torch.Tensor:
        """States in which each prompt's first token follows the last cell, whatever fills between."""
        states = read.last_hidden_state.clone()
        for row, gap in enumerate(gaps):
            states[row, cells + gap - 1] = states[row, cells - 1]
        return states

    def _to_end(self, tokens: list[int]) -> list[int]:
        end = self.shape.end
        return tokens[: tokens.index(end)] if end in tokens else tokens

    def save(self, folder: Path) -> None:
        """Write weights, in half precision, and shape; the folder is made."""
        from safetensors.torch import save_model

        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(asdict(self.shape), indent=2) + "\n")
        save_model(copy.deepcopy(self).half(), str(folder / WEIGHTS))

    @classmethod
    def from_folder(cls, folder: Path) -> SightedDecoder:
        """As `save` wrote it.

        Raises
        ------
        ValueError
            The folder holds another kind of model.
        """
        from safetensors.torch import load_model

        try:
            shape = Shape(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
            model = cls(shape)
            load_model(model, str(folder / WEIGHTS))
        except (TypeError, RuntimeError, json.JSONDecodeError) as error:
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder} holds no captioner of this recipe: {told}") from None
        return model.eval()
