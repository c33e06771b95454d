from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pydantic import ValidationError

from selection.bleu import sentence_bleu
from selection.niqe import NiqeModel, niqe
from selection.scales import Standard, Standards, fit_standards
from selection.scoring import Selector
from selection.settings import ScoringSettings

TARGET = np.array([1.0, 0.0], dtype=np.float32)


def towards(*cosines: float) -> np.ndarray:
    """Unit rows with these cosines to TARGET."""
    return np.array([[c, np.sqrt(1 - c * c)] for c in cosines], dtype=np.float32)


def selector(standards=None, **settings) -> Selector:
    return Selector(ScoringSettings.model_validate(settings), standards)


def test_a_caption_scores_its_cosine_and_its_bleu():
    texts, references = ["a red hat on a table", "a dog in the park"], ["a red hat on a chair"]
    judged = selector(caption={"lambda1": 0.7, "lambda2": 0.3, "agreement": 0}).judge_captions(
        texts, towards(0.2, 0.5), TARGET, references
    )
    for judgement, text, cosine in zip(judged.judgements, texts, (0.2, 0.5), strict=True):
        bleu = sentence_bleu(text, references)
        assert judgement.bleu == bleu
        assert judgement.cosine == pytest.approx(cosine)
        assert judgement.score == pytest.approx(0.7 * cosine + 0.3 * bleu)


def test_the_weights_decide_between_cosine_and_bleu():
    texts, references = ["a red hat on a table", "a dog in the park"], ["a red hat on a chair"]
    choices = [
        selector(caption={"lambda2": weight})
        .judge_captions(texts, towards(0.2, 0.5), TARGET, references)
        .chosen
        for weight in (0.0, 2.0)
    ]
    assert choices == [1, 0]


def test_a_caption_that_suits_any_picture_gives_way_to_one_that_suits_this_one():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((3, 4)).astype(np.float32)
    others = generator.standard_normal((20, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    settings = ScoringSettings.model_validate({"caption": {"agreement": 0, "hubness": 0.5}})
    judged = Selector(settings, pseudo_texts=others).judge_captions(
        ["one", "two", "three"], rows, rows[0]
    )
    for judgement, row in zip(judged.judgements, rows, strict=True):
        nearest = sorted((float(row @ other) for other in others), reverse=True)[:5]
        assert judgement.cosine == pytest.approx(float(row @ rows[0]))
        assert judgement.score == pytest.approx(judgement.cosine - 0.5 * np.mean(nearest), abs=1e-5)
    hub, own = towards(0.8, 0.75) * [[1, 1], [1, -1]]
    pair = np.stack([hub, own]).astype(np.float32)
    crowded = Selector(settings, pseudo_texts=np.tile(hub, (5, 1)).astype(np.float32))
    assert crowded.judge_captions(["a thing", "a dog"], pair, TARGET).chosen == 1
    assert Selector(settings).judge_captions(["a thing", "a dog"], pair, TARGET).chosen == 0


def test_of_captions_as_near_the_one_most_like_the_others_is_chosen():
    texts = ["a dog", "a red hat", "A red hat.", "", "a red cap"]
    rows = np.array([[0.6, -0.8], [0.6, 0.8], [0.6, 0.8], [0, 0], [0.5, 0.866]], np.float32)
    judged = selector(caption={"agreement": 0.3}).judge_captions(texts, rows, TARGET)
    votes = [rows[1], rows[2], rows[4]]
    expected = 0.6 + 0.3 * np.mean([float(rows[0] @ vote) for vote in votes])
    assert judged.judgements[0].score == pytest.approx(expected, abs=1e-5)
    assert judged.judgements[2].reason == "duplicate"
    assert judged.chosen == 1
    alone = selector(caption={"agreement": 0.3}).judge_captions(texts[:1], rows[:1], TARGET)
    assert alone.judgements[0].score == pytest.approx(0.6)


def test_faulty_captions_go_first_each_with_its_reason_whatever_their_cosine():
    prompt = "Please write a caption of the image. Caption:"
    texts = ["", "a hat on top of a hat on top of", "Please write a caption", "a dog", "A dog."]
    judged = selector().judge_captions(
        texts, towards(0.99, 0.99, 0.99, 0.1, 0.99), TARGET, ["a cat"], [prompt] * 5
    )
    assert [j.reason for j in judged.judgements] == ["empty", "loop", "echo", None, "duplicate"]
    assert [j.valid for j in judged.judgements] == [False, False, False, True, False]
    assert [j.score is None for j in judged.judgements] == [True, True, True, False, True]
    assert judged.chosen == 3


def test_a_row_whose_candidates_are_all_invalid_says_why():
    judged = selector().judge_captions(["", " ", "no no no no"], towards(0.1, 0.2, 0.3), TARGET)
    assert judged.chosen is None
    assert judged.reason == "all candidates invalid: empty, loop"
    assert selector().judge_images([], np.empty((0, 2)), TARGET).reason == "no candidates"


def test_ties_go_to_the_first():
    judged = selector().judge_captions(["a cat", "a dog"], towards(0.5, 0.5), TARGET)
    assert judged.chosen == 0


def test_without_a_pseudo_embedding_bleu_alone_decides():
    judged = selector().judge_captions(["a dog", "a red hat"], None, None, ["a red hat"])
    assert judged.chosen == 1
    assert judged.judgements[1].cosine is None
    assert judged.notes == ("cosine left out: no pseudo-embedding",)


def test_a_row_below_its_floor_is_rejected_with_its_figure():
    texts, rows = ["a cat", "a dog"], towards(0.2, 0.3)
    judged = selector(caption={"floor_cosine": 0.5}).judge_captions(texts, rows, TARGET)
    assert (judged.chosen, judged.reason) == (
        None,
        "below floor: best cosine 0.300 < floor_cosine 0.5",
    )
    judged = selector(caption={"floor_score": 0.4, "agreement": 0}).judge_captions(
        texts, rows, TARGET
    )
    assert (judged.chosen, judged.reason) == (
        None,
        "below floor: best score 0.300 < floor_score 0.4",
    )


def test_a_floor_on_the_cosine_holds_for_the_chosen_candidate():
    judged = selector(caption={"lambda2": 5, "floor_cosine": 0.25}).judge_captions(
        ["a red hat", "a dog"], towards(0.2, 0.3), TARGET, ["a red hat"]
    )
    assert judged.chosen == 1


def test_a_picture_scores_its_standardised_cosine_less_its_standardised_niqe(photographs):
    standards = Standards(Standard(0.4, 0.1), Standard(5.0, 2.0))
    judged = selector(standards, image={"lambda1": 1.0, "lambda2": 0.5}).judge_images(
        photographs, towards(0.3, 0.6), TARGET
    )
    quality = niqe(photographs)
    for number, cosine in enumerate((0.3, 0.6)):
        expected = (cosine - 0.4) / 0.1 - 0.5 * (quality[number] - 5.0) / 2.0
        assert judged.judgements[number].niqe == pytest.approx(quality[number])
        assert judged.judgements[number].score == pytest.approx(expected, abs=1e-5)


def test_the_papers_raw_score_needs_no_standards(photographs):
    judged = selector(image={"lambda2": 0.1, "standardise": False}).judge_images(
        photographs, towards(0.3, 0.6), TARGET
    )
    expected = np.array([0.3, 0.6]) - 0.1 * niqe(photographs)
    assert [j.score for j in judged.judgements] == pytest.approx(list(expected), abs=1e-6)


def test_of_two_equally_fitting_pictures_the_sharper_wins(photographs):
    photo = Image.fromarray(photographs[0])
    standards = Standards(Standard(0.4, 0.1), Standard(5.0, 2.0))
    judged = selector(standards).judge_images(
        [photo.filter(ImageFilter.GaussianBlur(3)), photo], towards(0.5, 0.5), TARGET
    )
    assert judged.chosen == 1


@pytest.mark.parametrize("size", [(64, 64), (200, 200)])
def test_one_picture_without_niqe_leaves_the_row_to_the_cosine_and_says_so(photographs, size):
    standards = Standards(Standard(0.4, 0.1), Standard(5.0, 2.0))
    drawing = Image.new("RGB", size, "white")
    drawing.paste("black", (30, 30, 34, 34))
    judged = selector(standards, image={"lambda2": 9}).judge_images(
        [photographs[0], drawing], towards(0.5, 0.6), TARGET
    )
    assert judged.notes == ("NIQE left out: a picture is too small or too flat",)
    assert judged.judgements[1].niqe is None
    assert judged.judgements[0].niqe == pytest.approx(niqe(photographs[:1])[0])
    assert judged.judgements[0].score == pytest.approx((0.5 - 0.4) / 0.1, abs=1e-5)
    assert judged.chosen == 1


def test_black_and_blank_pictures_go_first():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    black, blank = np.zeros((200, 200, 3), np.uint8), Image.new("RGB", (200, 200), "red")
    judged = selector().judge_images(
        [black, blank, noise, None], towards(0.9, 0.9, 0.1, 0.0), TARGET
    )
    assert [j.reason for j in judged.judgements] == ["black", "blank", None, "empty"]
    assert judged.chosen == 2


def test_standards_are_the_moments_of_the_real_pairs(photographs):
    crops = [photo[y : y + 200] for photo in photographs for y in (0, 100, 200)]
    rows = towards(0.1, 0.2, 0.6)
    standards = fit_standards(rows, np.tile(TARGET, (3, 1)), crops)
    assert standards.cosine is not None
    assert standards.niqe is not None
    assert standards.cosine.mean == pytest.approx(0.3)
    assert standards.cosine.deviation == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))
    assert standards.niqe.mean == pytest.approx(niqe(crops).mean())
    assert Standards.from_dict(json.loads(json.dumps(standards.to_dict()))) == standards


def test_pictures_too_small_for_niqe_give_no_standard_and_a_warning(photographs, caplog):
    with caplog.at_level(logging.WARNING):
        standards = fit_standards(towards(0.1, 0.2), None, [p[:64, :64] for p in photographs])
    assert standards == Standards(None, None)
    assert "judged by the cosine alone" in caplog.text


def test_niqe_is_not_measured_where_the_settings_do_not_use_it(photographs):
    settings = ScoringSettings.model_validate({"image": {"niqe": "off"}})
    assert Selector.fit_standards(settings, towards(0.1, 0.2), None, photographs).niqe is None
    judged = Selector(settings).judge_images(photographs, towards(0.1, 0.2), TARGET)
    assert [j.niqe for j in judged.judgements] == [None, None]


def test_a_fitted_model_is_used_and_demanded(photographs):
    settings = ScoringSettings.model_validate({"image": {"niqe": "fitted", "standardise": False}})
    with pytest.raises(ValueError, match="no fitted NIQE model"):
        Selector(settings)
    model = NiqeModel.fit(photographs, block=32, sharpness=0.3)
    small = [photo[:64, :64] for photo in photographs]
    judged = Selector(settings, niqe_model=model).judge_images(small, towards(0.1, 0.2), TARGET)
    assert [j.niqe for j in judged.judgements] == pytest.approx(list(niqe(small, model)))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"caption": {"lambda2": -1}}, "caption.lambda2"),
        ({"image": {"niqe_block": 33}}, "image.niqe_block"),
        ({"image": {"niqe": "guess"}}, "image.niqe"),
        ({"caption": {"lambda": 1}}, "caption.lambda"),
        ({"caption": {"floor_cosine": 2}}, "caption.floor_cosine"),
    ],
)
def test_settings_out_of_range_or_unknown_are_refused(settings, field):
    with pytest.raises(ValidationError) as caught:
        ScoringSettings.model_validate(settings)
    assert ".".join(map(str, caught.value.errors()[0]["loc"][:2])) == field


def test_mismatched_arrays_are_refused_with_their_shapes():
    with pytest.raises(ValueError, match=r"\[2, 2\].*got \(1, 2\)"):
        selector().judge_captions(["a cat", "a dog"], towards(0.1), TARGET)
    with pytest.raises(ValueError, match="one per caption; got 1"):
        selector().judge_captions(["a cat", "a dog"], None, None, (), ["prompt"])
    with pytest.raises(ValueError, match="positive deviation"):
        Standard(0.0, 0.0)
