"""A small captioner: a pretrained language model that stays as it is, and a look at pictures that it is given.

What the eyes see in each cell of a picture becomes one word of the language model's input, before the
prompt; only that is learned (Merullo et al. 2023, "Linearly mapping from image to text space"; Ramos et
al. 2023, "SmallCap", shows such a model captions of other pictures and has it so in domains that it never
saw). What the language model learned elsewhere, above all to go on as a prompt began, is kept whole.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

WEIGHTS, CONFIG, LANGUAGE_MODEL = "model.safetensors", "config.json", "language_model"


@dataclass(frozen=True)
class Shape:
    """What pictures are looked at with; `config.json` in a captioner's folder.

    Attributes
    ----------
    eyes : str
        See `eyes.open_eyes`.
    channels, cells : int
        Of what the eyes give of a picture, [cells, channels].
    """

    eyes: str
    channels: int
    cells: int


class Look(nn.Module):
    """Words of a language model's input for what is seen.

    Parameters
    ----------
    shape : Shape
    width : int
        Of the language model's input.
    length : float
        Euclidean length of a word there, which what is seen begins with.
    """

    def __init__(self, shape: Shape, width: int, length: float) -> None:
        super().__init__()
        self.shape = shape
        self.places = nn.Parameter(torch.zeros(shape.cells, width))
        self.words = nn.Sequential(
            nn.LayerNorm(shape.channels),
            nn.Linear(shape.channels, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, length / width**0.5)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Of cells [n, cells, channels] words [n, cells, width]."""
        seen: torch.Tensor = self.norm(self.words(cells) + self.places)
        return seen


class SightedModel(nn.Module):
    """A causal language model and its look at pictures, as `Blip2Captioner` asks for a model.

    Parameters
    ----------
    language_model : module
        A causal language model of transformers; held.
    tokenizer : tokenizer
        Its own. The token that begins its texts stands before what is seen.
    shape : Shape

    Raises
    ------
    ValueError
        The tokenizer has no token that begins a text.
    """

    def __init__(self, language_model: Any, tokenizer: Any, shape: Shape) -> None:
        super().__init__()
        if tokenizer.bos_token_id is None:
            raise ValueError("the language model's tokenizer has no token that begins a text")
        self.shape = shape
        self.begin = int(tokenizer.bos_token_id)
        self.language_model = language_model.requires_grad_(False).eval()
        width = language_model.get_input_embeddings().embedding_dim
        with torch.no_grad():
            some = torch.arange(0, len(tokenizer), max(1, len(tokenizer) // 1000))
            length = float(self.get_input_embeddings()(some).float().norm(dim=-1).mean())
        self.look = Look(shape, width, length)
        text = language_model.config.get_text_config()
        # What is seen stands there like BLIP-2's queries.
        self.config = SimpleNamespace(text_config=text, num_query_tokens=shape.cells + 1)
        self.generation_config = language_model.generation_config

    @property
    def device(self) -> torch.device:
        return next(self.language_model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.language_model.parameters()).dtype

    def get_input_embeddings(self) -> Any:
        """The language model's, which scale what they look up where it was trained so."""
        return self.language_model.get_input_embeddings()

    def seen(self, cells: torch.Tensor) -> torch.Tensor:
        """What stands before a prompt, [n, 1 + cells, width], of cells [n, cells, channels]."""
        looked = self.look(cells.to(self.look.places.dtype)).to(self.dtype)
        first = torch.full((len(cells), 1), self.begin, device=self.device)
        return torch.cat([self.get_input_embeddings()(first), looked], dim=1)

    def states(self, cells: torch.Tensor, tokens: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        """The states that foretell each token, [n, length, width], for training.

        Parameters
        ----------
        cells : float [n, cells, channels]
        tokens : int [n, length]
            Filled up on the right.
        here : bool [n, length]
            Which tokens are text.
        """
        seen = self.seen(cells)
        present = torch.cat([here.new_ones(seen.shape[:2]), here], dim=1)
        words = torch.cat([seen, self.get_input_embeddings()(tokens)], dim=1)
        read = self.language_model.model(inputs_embeds=words, attention_mask=present.long())
        states: torch.Tensor = read.last_hidden_state
        return states[:, seen.shape[1] - 1 : -1]


def read_language_model(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A causal language model in transformers' layout, and its tokenizer, which begins no text by itself.

    Raises
    ------
    ValueError
        The folder holds none.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, add_bos_token=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} holds no causal language model: {told}") from None
    return model, tokenizer


def begin_folder(out: Path, language_model: Path) -> None:
    """Put a language model where a captioner is to lie; what lies there already stays."""
    if not (out / LANGUAGE_MODEL).is_dir():
        beside = out / f"{LANGUAGE_MODEL}.new"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(language_model, beside)
        beside.rename(out / LANGUAGE_MODEL)


def save_look(look: Look, out: Path) -> None:
    """Write what was learned, and what it looks with."""
    from safetensors.torch import save_file

    weights = {name: part.half().contiguous() for name, part in look.state_dict().items()}
    save_file(weights, str(out / f"{WEIGHTS}.new"))
    (out / CONFIG).write_text(json.dumps(asdict(look.shape), indent=2) + "\n")
    os.replace(out / f"{WEIGHTS}.new", out / WEIGHTS)


def open_sighted(folder: Path, dtype: torch.dtype) -> tuple[SightedModel, Any]:
    """A captioner as `begin_folder` and `save_look` left it, and its tokenizer.

    Raises
    ------
    ValueError
        The folder holds another kind of model.
    """
    from safetensors.torch import load_file

    language_model, tokenizer = read_language_model(folder / LANGUAGE_MODEL, dtype)
    try:
        shape = Shape(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        model = SightedModel(language_model, tokenizer, shape)
        model.look.load_state_dict(load_file(str(folder / WEIGHTS)))
    except (TypeError, RuntimeError, json.JSONDecodeError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} holds no captioner of this recipe: {told}") from None
    return model.eval(), tokenizer
