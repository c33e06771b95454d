"""Draws of tokens, against transformers' own filters and against the distribution itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from generators.sampling import SamplingSettings, SeededSampling, draw_tokens, filtered


def brute_force_nucleus(logits: list[float], top_p: float) -> set[int]:
    """Tokens of the smallest set, likeliest first, whose probabilities reach top_p."""
    weights = [math.exp(logit) for logit in logits]
    probabilities = [weight / sum(weights) for weight in weights]
    kept: set[int] = set()
    mass = 0.0
    for token in sorted(range(len(logits)), key=lambda token: -probabilities[token]):
        if mass >= top_p:
            break
        kept.add(token)
        mass += probabilities[token]
    return kept


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999])
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float) -> None:
    logits = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) * 2
    kept = filtered(logits, top_p=top_p).isfinite()
    for row, scores in enumerate(logits.double().tolist()):
        assert set(kept[row].nonzero().flatten().tolist()) == brute_force_nucleus(scores, top_p)


@pytest.mark.parametrize("spread", [0.1, 6.0])
def test_the_nucleus_of_a_large_vocabulary_is_that_of_sorting_all_of_it(spread: float) -> None:
    # A flat row has its mass with more tokens than are looked at first, a steep one with fewer.
    logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(1)) * spread
    kept = filtered(logits, top_p=0.9).isfinite()
    for row, scores in enumerate(logits.double().tolist()):
        assert set(kept[row].nonzero().flatten().tolist()) == brute_force_nucleus(scores, 0.9)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 0.9), (0.7, 12, 1.0), (1.3, 20, 0.8)]
)
def test_filters_agree_with_those_of_transformers(
    temperature: float, top_k: int, top_p: float
) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(50, 200, generator=torch.Generator().manual_seed(1)) * 3
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    ours = filtered(logits, temperature, top_k, top_p)
    torch.testing.assert_close(ours.softmax(-1), expected.softmax(-1), atol=1e-6, rtol=1e-4)


def test_ruled_out_tokens_are_never_drawn() -> None:
    logits = torch.zeros(1, 8)
    logits[0, 3] = -math.inf
    for seed in range(200):
        drawn = SeededSampling([seed], SamplingSettings(top_p=1.0))(torch.ones(1, 1), logits)
        assert drawn.argmax().item() != 3


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, 0.5, -1.0]])
    draw = SeededSampling(range(500), SamplingSettings(top_p=1.0, temperature=1.0))
    rows = logits.expand(500, -1)
    counts = np.zeros(5)
    for _ in range(20):
        counts += np.bincount(draw(torch.ones(500, 1), rows).argmax(-1).numpy(), minlength=5)
    expected = logits.softmax(-1)[0].numpy() * counts.sum()
    assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_a_row_draws_the_same_whoever_is_beside_it() -> None:
    logits = torch.randn(12, 3, 50, generator=torch.Generator().manual_seed(2))
    settings = SamplingSettings()
    together = SeededSampling([5, 6, 7], settings)
    alone = SeededSampling([6], settings)
    for step in logits:
        ids = torch.ones(3, 1)
        assert torch.equal(together(ids, step)[1], alone(ids[:1], step[1:2])[0])


def test_noise_is_new_at_every_token() -> None:
    draw = SeededSampling([1], SamplingSettings(top_p=1.0))
    flat = torch.zeros(1, 40)
    steps = [draw(torch.ones(1, 1), flat) for _ in range(20)]
    assert len({tuple(step[0].tolist()) for step in steps}) == 20


def test_a_seed_for_every_row() -> None:
    with pytest.raises(ValueError, match="2 seeds for 3 rows"):
        SeededSampling([1, 2], SamplingSettings())(torch.ones(3, 1), torch.zeros(3, 4))


@pytest.fixture(scope="module")
def small_gpt2() -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2))
    return model.eval()


def test_copies_draw_as_single_rows_do(small_gpt2: torch.nn.Module) -> None:
    settings = SamplingSettings(max_new_tokens=6)
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    mask = torch.ones_like(ids)
    seeds = [11, 12, 13, 21, 22, 23]
    several, _ = draw_tokens(
        small_gpt2, settings, seeds, copies=3, input_ids=ids, attention_mask=mask, pad_token_id=0
    )
    single, _ = draw_tokens(
        small_gpt2,
        settings,
        seeds,
        input_ids=ids.repeat_interleave(3, 0),
        attention_mask=mask.repeat_interleave(3, 0),
        pad_token_id=0,
    )
    assert several.shape == (6, 6)
    assert torch.equal(several, single)


def test_the_prompt_is_sliced_off_by_tokens(small_gpt2: torch.nn.Module) -> None:
    ids = torch.tensor([[3, 4, 5]])
    tokens, sound = draw_tokens(
        small_gpt2,
        SamplingSettings(max_new_tokens=4),
        [1],
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pad_token_id=0,
    )
    assert tokens.shape == (1, 4)
    assert sound == [True]


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_whose_scores_are_not_finite_is_told_and_the_others_are_sound(
    copies: int, value: float, small_gpt2: torch.nn.Module
) -> None:
    """Greedy decoding would read them as the first token, an exclamation mark in most models."""

    def spoil(module: Any, inputs: Any, scores: torch.Tensor) -> torch.Tensor:
        spoilt = scores.clone()
        spoilt[copies : 2 * copies, -1, 3] = value
        return spoilt

    handle = small_gpt2.lm_head.register_forward_hook(spoil)
    ids = torch.tensor([[3, 4], [5, 6], [7, 8]])
    _, sound = draw_tokens(
        small_gpt2,
        SamplingSettings(max_new_tokens=3),
        range(3 * copies),
        copies=copies,
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pad_token_id=0,
    )
    handle.remove()
    assert sound == [True] * copies + [False] * copies + [True] * copies
