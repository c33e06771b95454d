from __future__ import annotations

import math

import pytest

from selection.bleu import sentence_bleu


def test_a_reference_repeated_scores_one():
    assert sentence_bleu("a red hat on a table", ["a red hat on a table"]) == 1.0


def test_agrees_with_the_formula_worked_by_hand():
    # 1-grams 5/6, 2-grams 3/5, 3-grams 1/4, 4-grams 0/3 smoothed to 1/(2·3); no brevity penalty.
    expected = (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** (1 / 4)
    assert sentence_bleu("the cat sat on a mat", ["the cat is on a mat"]) == pytest.approx(expected)


def test_a_short_caption_pays_the_brevity_penalty_but_not_for_missing_4_grams():
    value = sentence_bleu("a red hat", ["a red hat on a table"])
    assert value == pytest.approx(math.exp(1 - 6 / 3))


def test_any_of_several_references_may_match():
    both = sentence_bleu("a red hat on a table", ["a red hat on a chair", "a blue cap on a table"])
    assert both > sentence_bleu("a red hat on a table", ["a red hat on a chair"])


def test_case_counts_unless_told_otherwise():
    assert sentence_bleu("A RED HAT", ["a red hat"]) == 0.0
    assert sentence_bleu("A RED HAT", ["a red hat"], lowercase=True) == 1.0


def test_chinese_is_taken_letter_by_letter_as_by_its_own_tokenizer():
    caption, reference = "一顶红色的帽子在桌子上", "一顶红色的帽子在椅子上"
    assert sentence_bleu(caption, [reference], tokenizer="13a") == 0.0
    chinese = sentence_bleu(caption, [reference], tokenizer="zh")
    assert sentence_bleu(caption, [reference]) == pytest.approx(chinese)
    assert chinese > 0.4


def test_nothing_said_scores_zero():
    assert sentence_bleu("  ", ["a red hat"]) == 0.0


def test_no_reference_and_an_unknown_tokenizer_are_refused():
    with pytest.raises(ValueError, match="at least one caption"):
        sentence_bleu("a red hat", [])
    with pytest.raises(ValueError, match="got 'klingon'"):
        sentence_bleu("a red hat", ["a hat"], tokenizer="klingon")
