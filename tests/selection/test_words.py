"""Captions in many scripts: compared by all that they say."""

from __future__ import annotations

import pytest

from selection.bleu import sentence_bleu
from selection.validity import caption_fault, duplicates
from selection.words import said, words

# Pairs that differ in marks or symbols alone.
DIFFERENT = [
    ("हिन्दी किताब", "हिन्दू किताब"),
    ("माल", "मेल"),
    ("กา", "กี"),
    ("கல்", "கால்"),
    ("বই", "বাই"),
    ("a 🐶", "a 🐱"),
    ("it costs $5", "it costs €5"),
    ("5 + 3", "5 − 3"),
    ("👍🏽", "👍🏿"),
]
SAME = [
    ("A red hat.", "a  red hat!"),
    ("the dog’s hat", "The dog's hat"),
    ("caf\u00e9", "cafe\u0301"),
    ("❤\ufe0f", "❤"),
    ("STRASSE", "straße"),
    ("ｆｕｌｌ width", "full width"),
    ("狗 在 跑", "狗在跑"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_differs_by_marks_or_symbols_is_no_duplicate(one: str, other: str) -> None:
    assert duplicates([one, other]) == [None, None]
    assert caption_fault(one) is None and caption_fault(other) is None


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_differs_by_case_spacing_or_form_alone_is_a_duplicate(one: str, other: str) -> None:
    assert duplicates([one, other]) == [None, 0]


def test_marks_stay_with_their_letters() -> None:
    assert words("हिन्दी में बिल्ली") == ["हिन्दी", "में", "बिल्ली"]
    assert words("แมวกี่ตัว")[:3] == ["แ", "ม", "ว"]
    assert words("เกี่")[-1] == "กี่"
    assert said("می\u200cروم") == ("می\u200cروم",)


def test_an_echo_is_told_in_any_script_and_other_vowels_are_none() -> None:
    prompt = "कृपया इस चित्र का शीर्षक लिखें:"
    assert caption_fault("कृपया इस चित्र का", prompt) == "echo"
    assert caption_fault("कपि इस चित्र का", prompt) is None


@pytest.mark.parametrize(
    "text",
    ["แมวอยู่บนโต๊ะแมวอยู่บนโต๊ะ", "एक कुत्ता और बिल्ली एक कुत्ता और बिल्ली", "ခွေးနဲ့ကြောင်ခွေးနဲ့ကြောင်"],
)
def test_a_loop_is_told_in_any_script(text: str) -> None:
    assert caption_fault(text) == "loop"


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        ("一只狗在草地上跑", "一只狗在草地上睡觉"),
        ("แมวอยู่บนโต๊ะสีแดง", "แมวอยู่บนเก้าอี้สีแดง"),
        ("赤い帽子をかぶった犬", "赤い帽子をかぶった猫"),
    ],
)
def test_bleu_is_measured_in_scripts_without_spaces(candidate: str, reference: str) -> None:
    assert sentence_bleu(candidate, [reference], tokenizer="13a") == 0.0
    assert 0.3 < sentence_bleu(candidate, [reference]) < 1.0
    assert sentence_bleu(candidate, [candidate]) == 1.0


@pytest.mark.parametrize("text", ["a red hat, on 2 tables", "हिन्दी में बिल्ली", "안녕하세요 고양이"])
def test_bleu_of_scripts_with_spaces_is_that_of_13a(text: str) -> None:
    references = ["a blue hat on tables", "हिन्दी में कुत्ता", "안녕하세요 강아지"]
    plain = sentence_bleu(text, references, tokenizer="13a")
    assert sentence_bleu(text, references) == plain
