"""Text sampling in which every candidate has its own random numbers.

``generate`` of transformers draws a whole batch from the global generator, so that a caption would
depend on its neighbours. Adding Gumbel noise to log-probabilities and taking the largest draws from
exactly the same distribution (Gumbel 1954; the "Gumbel-max trick"), and lets each row bring its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    import torch

# Noise for several tokens is drawn at a time: on a GPU one draw a row and a token costs more in
# kernel launches than the draw itself.
NOISE_TOKENS = 8
# Tokens among which the likely ones are looked for before all are sorted.
LIKELIEST = 1024


class SamplingSettings(BaseModel):
    """How a text is drawn token by token, and where it ends."""

    model_config = ConfigDict(extra="forbid")

    max_new_tokens: int = Field(40, ge=1, description="Most tokens that a caption may have.")
    temperature: float = Field(
        1.0, gt=0, description="Divides the logits: below 1 safer, above 1 more varied."
    )
    top_p: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Draw among the likeliest tokens that make up this probability.",
    )
    top_k: int = Field(0, ge=0, description="Draw among this many likeliest tokens; 0 means all.")
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        description="Above 1, tokens that the caption already has get less likely.",
    )
    no_repeat_ngram_size: int = Field(
        0,
        ge=0,
        description="No run of this many tokens occurs twice in a caption; 0 allows it.",
    )
    stops: tuple[str, ...] = Field(
        ("\n",), description="The caption ends before the first of these."
    )

    @field_validator("stops")
    @classmethod
    def _no_empty_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError(
                "stops must not hold an empty text; it would cut every caption to nothing"
            )
        return value


class SeededSampling:
    """A logits processor of transformers that draws each row by that row's own seed.

    Returns filtered log-probabilities plus Gumbel noise, so that greedy decoding (``do_sample=False``)
    picks a draw from the filtered distribution. Used once, for one call of ``generate``.

    Parameters
    ----------
    seeds : sequence of int
        One for each row of the batch.
    settings : SamplingSettings
        Temperature and filters.
    only_drawn : bool
        Leave the drawn token alone possible, so that a decoder that samples has no choice.

    Attributes
    ----------
    prompt_tokens_ : int or None
        Tokens of the output that were there before the first drawn one: what to slice off.
    unsound_ : bool tensor [rows] or None
        Rows whose scores were not finite at some token: what was drawn of them says nothing.
    """

    def __init__(
        self, seeds: Sequence[int], settings: SamplingSettings, only_drawn: bool = False
    ) -> None:
        self.seeds = tuple(seeds)
        self.settings = settings
        self.only_drawn = only_drawn
        self.prompt_tokens_: int | None = None
        self.unsound_: torch.Tensor | None = None
        self._generators: list[torch.Generator] = []
        self._noise: torch.Tensor | None = None
        self._drawn = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Draw-ready scores.

        Parameters
        ----------
        input_ids : int tensor [rows, tokens]
            The output so far.
        scores : float tensor [rows, vocabulary]
            Logits of the next token.
        """
        if scores.shape[0] != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds for {scores.shape[0]} rows")
        if self.prompt_tokens_ is None:
            self.prompt_tokens_ = input_ids.shape[1]
        kept = filtered(
            scores.float(),
            self.settings.temperature,
            self.settings.top_k,
            self.settings.top_p,
        )
        # Looked at once the text is drawn: a look at each token would wait for the GPU each time.
        unsound = kept.isnan().any(dim=-1)
        self.unsound_ = unsound if self.unsound_ is None else self.unsound_ | unsound
        noisy = kept + self._next_noise(kept)
        if not self.only_drawn:
            return noisy
        drawn = noisy.argmax(dim=-1, keepdim=True)
        return noisy.new_full(noisy.shape, -float("inf")).scatter(-1, drawn, 0.0)

    def _next_noise(self, like: torch.Tensor) -> torch.Tensor:
        """Gumbel noise [rows, vocabulary] for the next token."""
        import torch

        if not self._generators:
            self._generators = [
                torch.Generator(device=like.device).manual_seed(seed) for seed in self.seeds
            ]
        if self._noise is None or self._drawn == NOISE_TOKENS:
            noise = like.new_empty(NOISE_TOKENS, *like.shape)
            for row, generator in enumerate(self._generators):
                draws = torch.empty(NOISE_TOKENS, like.shape[1], device=like.device)
                noise[:, row] = draws.exponential_(generator=generator)
            # -log of an exponential is Gumbel; the floor keeps a drawn 0 from becoming infinite.
            self._noise = noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_().neg_()
            self._drawn = 0
        self._drawn += 1
        return self._noise[self._drawn - 1]


def filtered(
    logits: torch.Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> torch.Tensor:
    """Log-probabilities after temperature, top-k and nucleus filtering (Holtzman et al. 2020).

    Parameters
    ----------
    logits : float tensor [rows, vocabulary]
        -inf marks a token that is already ruled out.
    temperature : float
        Divides the logits.
    top_k : int
        Keep this many tokens; 0 keeps all.
    top_p : float
        Keep the likeliest tokens whose probabilities just reach this sum.

    Returns
    -------
    float tensor [rows, vocabulary]
        -inf for what was filtered. The rest is not normalised again: a constant a row changes no draw.
    """
    import torch

    logs = torch.log_softmax(logits / temperature, dim=-1)
    if top_k and top_k < logs.shape[-1]:
        smallest = logs.topk(top_k, dim=-1).values[:, -1:]
        logs = torch.log_softmax(logs.masked_fill(logs < smallest, -torch.inf), dim=-1)
    if top_p < 1.0:
        logs = logs.masked_fill(_beyond(logs, top_p), -torch.inf)
    return logs


def _beyond(logs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Which tokens, bool [rows, vocabulary], the likelier ones alone already reach `top_p` without."""
    import torch

    # On a CPU sorting a quarter of a million tokens takes longer than a small model does; the mass
    # nearly always lies with few of them. A GPU sorts sooner than it tells whether it does.
    few = logs.device.type == "cpu" and logs.shape[-1] > LIKELIEST
    ordered, order = logs.topk(LIKELIEST) if few else logs.sort(dim=-1, descending=True)
    mass = ordered.exp()
    if few and not bool((mass.sum(dim=-1) >= top_p).all()):
        ordered, order = logs.sort(dim=-1, descending=True)
        mass = ordered.exp()
    # A token goes when the likelier ones reach it; so the likeliest always stays.
    beyond = mass.cumsum(dim=-1) - mass >= top_p
    return torch.ones_like(logs, dtype=torch.bool).scatter(-1, order, beyond)


def keep_special_tokens(model: Any, *sources: Any, eos_token_ids: Sequence[int] = ()) -> None:
    """Replace a model's generation defaults by its special tokens alone.

    ``generate`` fills whatever it isn't told from the defaults of the checkpoint, so that a
    checkpoint's beams, lengths or penalties would leak into the settings.

    Parameters
    ----------
    model : transformers model with ``generate``
        Its ``generation_config`` is replaced.
    *sources
        Generation or model configs to look the tokens up in; the first that has one wins.
    eos_token_ids : sequence of int
        More tokens that end a text.
    """
    from transformers import GenerationConfig

    sources = tuple(source for source in sources if source is not None)
    kept: dict[str, Any] = {}
    for name in (
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "suppress_tokens",
        "begin_suppress_tokens",
        "bad_words_ids",
    ):
        values = (getattr(source, name, None) for source in sources)
        value = next((value for value in values if value is not None), None)
        if value is not None:
            kept[name] = value
    ends = kept.get("eos_token_id", [])
    ends = list(ends) if isinstance(ends, (list, tuple)) else [ends]
    ends += [token for token in eos_token_ids if token not in ends]
    if ends:
        kept["eos_token_id"] = ends
        kept.setdefault("pad_token_id", ends[0])
    model.generation_config = GenerationConfig(**kept)


def draw_tokens(
    model: Any, settings: SamplingSettings, seeds: Sequence[int], copies: int = 1, **inputs: Any
) -> tuple[torch.Tensor, list[bool]]:
    """New tokens of a batch, each row drawn by its own seed.

    Parameters
    ----------
    model : transformers model with ``generate``
        Its defaults cleaned by `keep_special_tokens`.
    settings : SamplingSettings
    seeds : sequence of int
        One for each row that comes out.
    copies : int
        Texts to draw of each row that goes in; the model encodes an image once for all of them.
    **inputs
        What ``generate`` takes beside.

    Returns
    -------
    tokens : int tensor [rows x copies, new tokens]
        Without the prompt, which decoder-only models may return in front of the answer.
    sound : list of rows x copies bool
        Whether all the scores that a row was drawn from were finite.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    # Greedy decoding of transformers knows no copies. Sampling does, and when one token alone is
    # possible it has no choice; what it draws from the global generator for nothing is put back.
    several = copies > 1
    draw = SeededSampling(seeds, settings, only_drawn=several)
    config = GenerationConfig(
        do_sample=several,
        num_return_sequences=copies,
        num_beams=1,
        max_new_tokens=settings.max_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        **({"top_k": 0} if several else {}),
    )
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=several):
        output = model.generate(
            **inputs, generation_config=config, logits_processor=LogitsProcessorList([draw])
        )
    sound = [True] * len(output) if draw.unsound_ is None else (~draw.unsound_).tolist()
    return output[:, draw.prompt_tokens_ or 0 :], sound
