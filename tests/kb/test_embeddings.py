from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import (
    EmbeddingWriter,
    InvalidEmbedding,
    Stacked,
    Subset,
    chunks,
    normalise,
    open_embeddings,
    opposite,
    take,
)
from tests.kb.worlds import resident


def rows(count: int, dimension: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def test_normalised_rows_are_unit_float32_and_point_the_same_way() -> None:
    given = rows(5)
    unit = normalise(given)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(unit * np.linalg.norm(given, axis=1)[:, None], given, rtol=1e-5)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite")])
def test_a_non_finite_row_is_named(value: float, words: str) -> None:
    given = rows(5)
    given[3, 2] = value
    with pytest.raises(InvalidEmbedding, match=f"row 3 is {words}"):
        normalise(given)


def test_an_all_zero_row_is_named_by_its_place_in_the_whole_array() -> None:
    given = rows(10)
    given[7] = 0
    with pytest.raises(InvalidEmbedding, match="row 7 is all zero"):
        list(chunks(given, 4))


def test_a_bad_row_of_a_sample_is_named_by_its_place_in_the_whole_array() -> None:
    given = rows(3000)
    given[2999, 1] = np.nan
    sample = np.random.default_rng(0).permutation(3000)[:1500]
    sample[700] = 2999
    with pytest.raises(InvalidEmbedding, match="row 2999 is not finite") as raised:
        take(given, sample)
    assert raised.value.row == 2999


def test_chunks_join_to_the_whole() -> None:
    given = rows(11)
    np.testing.assert_array_equal(np.concatenate(list(chunks(given, 4))), normalise(given))


def test_the_writer_makes_a_file_that_numpy_maps(tmp_path: Path) -> None:
    path = tmp_path / "e.npy"
    given = rows(300, 17)
    with EmbeddingWriter(path, 17) as writer:
        writer.append(given[:100])
        writer.append(given[100:])
        assert not path.exists()
    mapped = np.load(path, mmap_mode="r")
    assert mapped.shape == (300, 17)
    assert mapped.dtype == np.float16
    np.testing.assert_allclose(mapped, normalise(given), atol=1e-3)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), EmbeddingWriter(tmp_path / "e.npy", 4) as writer:
        writer.append(rows(3, 4))
        raise RuntimeError("the encoder died")
    assert list(tmp_path.iterdir()) == []


def test_copied_rows_keep_their_bits(tmp_path: Path) -> None:
    given = normalise(rows(20, 8)).astype(np.float16)
    with EmbeddingWriter(tmp_path / "e.npy", 8) as writer:
        writer.copy(given)
    np.testing.assert_array_equal(open_embeddings(tmp_path / "e.npy"), given)


def test_stacked_arrays_read_as_one() -> None:
    parts = [rows(4, seed=1), rows(0, seed=2), rows(7, seed=3)]
    whole = np.concatenate(parts)
    stacked = Stacked(parts)
    assert stacked.shape == whole.shape
    np.testing.assert_array_equal(stacked[2:9], whole[2:9])
    chosen = np.array([10, 0, 4, 3, 3])
    np.testing.assert_allclose(stacked[chosen], whole[chosen], rtol=1e-6)
    np.testing.assert_allclose(take(stacked, chosen), normalise(whole[chosen]), rtol=1e-6)


def test_stacking_arrays_of_different_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[5, 6\]"):
        Stacked([rows(2, 5), rows(2, 6)])


def test_a_subset_is_the_chosen_rows() -> None:
    whole = rows(9)
    subset = Subset(whole, np.array([8, 1, 5]))
    np.testing.assert_array_equal(subset[0:3], whole[[8, 1, 5]])
    np.testing.assert_array_equal(subset[np.array([2, 0])], whole[[5, 8]])


def test_only_the_two_modalities_have_an_opposite() -> None:
    assert (opposite("image"), opposite("text")) == ("text", "image")
    with pytest.raises(ValueError, match="audio"):
        opposite("audio")  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is resident")
def test_a_sweep_over_a_file_leaves_no_pages_behind(tmp_path: Path) -> None:
    with EmbeddingWriter(tmp_path / "e.npy", 256) as writer:
        writer.append(rows(40_000, 256))
    held = Subset(Stacked([open_embeddings(tmp_path / "e.npy")]), np.arange(40_000))
    held[0:40_000]
    assert resident("e.npy") > 15e6
    for block in chunks(held, 10_000):
        assert len(block) == 10_000
    assert resident("e.npy") < 1e6
