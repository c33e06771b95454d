"""CIDEr-D against a twin written from the formula, and the corpus figures."""

from __future__ import annotations

import math
import random
from functools import cache

import numpy as np
import pytest

from pipeline.check.captions import bleu_and_chrf, cider_d, words

VOCABULARY = ["a", "the", "red", "blue", "dog", "cat", "hat", "on", "with", "big", "small", "sits"]


def twin(candidates: list[str], references: list[list[str]]) -> list[float]:
    """Equations 1 to 5 of Vedantam et al. 2015, term by term."""

    @cache
    def grams(text: str, n: int) -> list[tuple[str, ...]]:
        tokens = words(text)
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    def g(text: str, n: int, k: tuple[str, ...]) -> float:
        holding = sum(any(k in grams(one, n) for one in row) for row in references)
        return grams(text, n).count(k) * math.log(len(references) / max(1, holding))

    scores = []
    for candidate, row in zip(candidates, references, strict=True):
        total = 0.0
        for n in (1, 2, 3, 4):
            for reference in row:
                both = set(grams(candidate, n)) | set(grams(reference, n))
                c = {k: g(candidate, n, k) for k in both}
                s = {k: g(reference, n, k) for k in both}
                norms = math.hypot(*c.values()) * math.hypot(*s.values()) if both else 0.0
                if norms:
                    gap = len(words(candidate)) - len(words(reference))
                    dot = sum(min(c[k], s[k]) * s[k] for k in both)
                    total += 10 / len(row) * math.exp(-(gap**2) / 72) * dot / norms
        scores.append(total / 4)
    return scores


def sentence(generator: random.Random, most: int = 9) -> str:
    return " ".join(generator.choices(VOCABULARY, k=generator.randint(1, most)))


def test_cider_d_is_the_formula() -> None:
    generator = random.Random(0)
    references = [[sentence(generator) for _ in range(generator.randint(1, 5))] for _ in range(25)]
    candidates = [generator.choice([sentence(generator), row[0]]) for row in references]
    found = cider_d(candidates, references)
    np.testing.assert_allclose(found, twin(candidates, references), atol=1e-9)
    assert found.max() > 1


def test_a_long_caption_equal_to_its_only_reference_scores_ten() -> None:
    references = [["a red dog sits on the hat"], ["the blue cat with a big small hat"]]
    np.testing.assert_allclose(cider_d([row[0] for row in references], references), 10)


def test_repeating_a_word_of_the_reference_does_not_pay() -> None:
    references = [["a red dog sits on the hat"], ["the blue cat"], ["a small cat"]]
    once, often = (cider_d([text, "x", "x"], references)[0] for text in ("dog", "dog " * 7))
    assert often < once


def test_a_row_without_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="each of at least one text"):
        cider_d(["a dog"], [[]])


def test_bleu_and_chrf_take_several_references_and_no_case() -> None:
    texts = ["A red dog sits here", "the small blue cat sleeps"]
    perfect = bleu_and_chrf(texts, [["no", "a red dog sits here"], ["the small blue cat sleeps"]])
    np.testing.assert_allclose(perfect, (1, 1))
    worse = bleu_and_chrf(texts, [["a red dog sat there"], ["the small cat"]])
    assert 0 < worse[0] < worse[1] < 1


# A dog runs, a dog drinks; a boat and a ghat; differ by their vowel signs alone.
HINDI = [("कुत्ता दौड़ता है और नाव", "कत्ता दौड़ती है और नवा"), ("दिन की नदी में घाट", "दीन का नदी मे घटी")]


@pytest.mark.parametrize(("text", "other"), HINDI)
def test_captions_that_differ_in_combining_marks_differ(text: str, other: str) -> None:
    assert words(text) == text.split()
    assert words(text) != words(other)
    others = ["पानी पर एक लाल जहाज", "एक बड़ा मैदान और पेड़"]
    references = [[text], *([one] for one in others)]
    same, another = (cider_d([one, *others], references)[0] for one in (text, other))
    assert same == pytest.approx(10) and another < 5
    exact, off = (bleu_and_chrf([one, *others], references) for one in (text, other))
    assert exact == pytest.approx((1, 1)) and off[0] < 1 and off[1] < 1


def test_a_mark_is_the_same_however_it_is_composed() -> None:
    assert words("cafe\u0301 no\u0308el") == words("caf\u00e9 n\u00f6el") == ["café", "nöel"]
    assert words("می\u200cروم") == ["می\u200cروم"]


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("一只狗在绿色的草地上跑", "一只狗在草地上跑", "海边有三艘白色的船"),
        ("緑の草の上を犬が走る", "草の上を犬が走る", "白い船が三つ並ぶ"),
        ("สุนัขวิ่งบนสนามหญ้าสีเขียว", "สุนัขวิ่งบนสนามหญ้า", "เรือสีขาวสามลำ"),
    ],
)
def test_scripts_without_spaces_are_compared_letter_by_letter(
    text: str, near: str, far: str
) -> None:
    assert len(words(text)) > 8
    references = [[text], ["a red boat on the sea"], [far]]
    like, unlike = (cider_d([one, "x", "x"], references)[0] for one in (near, far))
    assert like > 2 > 0.5 > unlike
    blue = [bleu_and_chrf([one], [[text]])[0] for one in (near, far)]
    assert blue[0] > 0.4 > blue[1]
