"""Projection heads on frozen towers: what they learn, and what their test counts as right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.embeddings import Modality
from pipeline.config.evaluation import HeadsSettings
from pipeline.evaluation.measures.downstream import Untouched
from pipeline.evaluation.measures.heads import Heads
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.storage.errors import ConfigError

SETTINGS = HeadsSettings(steps=60, batch_size=64, width=16, learning_rate=0.01, device="cpu")
MEANINGS, WIDTH = 400, 12


class Towers:
    """Two spaces that share no axis: contents are numbers, embedded by fixed random maps."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.meaning = generator.normal(size=(MEANINGS, WIDTH))
        self.maps = {
            "image": generator.normal(size=(WIDTH, 40)),
            "text": generator.normal(size=(WIDTH, 24)),
        }
        self.seen: list[tuple[str, Any]] = []

    def __call__(
        self, modality: Modality, contents: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        self.seen += [(modality, one) for one in contents]
        names = [one.decode() if isinstance(one, bytes) else one[0] for one in contents]
        numbers = [int(name.split()[0]) for name in names]
        noise = np.stack(
            [np.random.default_rng(list(name.encode())).normal(size=WIDTH) for name in names]
        )
        rows = (self.meaning[numbers] + 0.8 * noise) @ self.maps[modality]
        unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        # There is no embedding of the picture and of the text of this name.
        return unit, np.array([not name.startswith("13 ") for name in names])


def pairs_of(numbers: Sequence[int], captions: int = 1) -> Pairs:
    return Pairs(
        [f"{n} picture".encode() for n in numbers],
        [tuple(f"{n} told {k}" for k in range(captions)) for n in numbers],
    )


def heads(
    folder: Path, test: Untouched, settings: HeadsSettings = SETTINGS
) -> tuple[Heads, Towers]:
    towers = Towers()
    return Heads(settings, towers, {"towers": "test"}, False, test, folder), towers


def untouched(captions: int = 1) -> Untouched:
    numbers = range(300, MEANINGS)
    return Untouched(pairs_of(numbers, captions), [str(n) for n in numbers])


def test_headslearn_what_pairs_have_in_common_and_more_pairs_teach_more(tmp_path: Path) -> None:
    made, _ = heads(tmp_path, untouched())
    few, many = (made.measure(pairs_of(range(n)), 3).hits((1, 5, 10)).mean() for n in (30, 300))
    assert many > few + 0.1 and few > 0.1
    assert made.untrained() is None
    mixed = pairs_of(range(300))
    wrong = Pairs(mixed.images, mixed.texts[150:] + mixed.texts[:150])
    assert made.measure(wrong, 3).hits((1, 5, 10)).mean() < few


def test_a_seed_gives_the_same_ranks_and_what_waslearned_is_notlearned_again(
    tmp_path: Path,
) -> None:
    made, towers = heads(tmp_path / "a", untouched())
    first = made.measure(pairs_of(range(50)), 2)
    again, _ = heads(tmp_path / "b", untouched())
    np.testing.assert_array_equal(
        again.measure(pairs_of(range(50)), 1).image_to_text, first.image_to_text[:1]
    )
    seen = len(towers.seen)
    assert made.held(pairs_of(range(50)), 3) == 2
    np.testing.assert_array_equal(
        made.measure(pairs_of(range(50)), 2).text_to_image, first.text_to_image
    )
    assert len(towers.seen) == seen


def test_each_of_several_captions_is_true_of_its_picture(tmp_path: Path) -> None:
    test = untouched(captions=3)
    assert test.true.shape == (100, 300) and test.true.sum() == 300
    made, _ = heads(tmp_path, test)
    found = made.measure(pairs_of(range(300), captions=3), 2)
    assert found.image_to_text.shape == (2, 100) and found.text_to_image.shape == (2, 300)
    one, _ = heads(tmp_path, untouched())
    alone = one.measure(pairs_of(range(300), captions=3), 2)
    # The best of three counts.
    assert (found.image_to_text == 0).mean() > (alone.image_to_text == 0).mean()


def test_rows_of_one_picture_are_one_picture_and_a_shared_text_is_true_of_both() -> None:
    pairs = Pairs([b"1", b"1", b"2"], [("a", "b"), ("c",), ("a",)])
    test = Untouched(pairs, ["first", "second", "third"])
    assert test.names == ["first", "third"] and test.texts == ["a", "b", "c"]
    assert test.true.tolist() == [[True, True, True], [True, False, False]]
    images = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = np.array([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    of_images, of_captions = test.rank(images, texts)
    assert of_images.tolist() == [0, 0]
    # "a" of both pictures, "b" (nearer to the other picture), "c".
    assert of_captions.tolist() == [0, 1, 0, 0]


def test_a_training_that_diverges_says_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = heads(tmp_path, untouched())
    monkeypatch.setattr(made, "learn", lambda *_: (np.full((100, 2), np.nan), np.ones((100, 2))))
    with pytest.raises(ConfigError, match="learning_rate: the training diverged; lower it"):
        made.measure(pairs_of(range(50)), 1)
    assert not list(tmp_path.iterdir())


def test_pairs_of_which_a_half_has_no_embedding_are_not_learned_from(tmp_path: Path) -> None:
    made, _ = heads(tmp_path, untouched())
    train = pairs_of(range(20), captions=2)
    odd = Pairs([*train.images, b"3 picture"], [*train.texts, ("13 told 0", "3 told 5")])
    usable = made.usable(odd)
    assert len(usable) == 20 and b"13 picture" not in usable.images
    assert list(usable.texts[-1]) == ["3 told 5"]
    assert made.usable(pairs_of(range(5))) == pairs_of(range(5))
