from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.cache import EmbeddingCache, content_key
from kb.embeddings import Modality, normalise


class CountingEncoder:
    """Hashes texts to directions, and remembers what it was asked for."""

    shared_space = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def load(self) -> None: ...

    def close(self) -> None: ...

    def dimension(self, modality: Modality) -> int:
        return 12

    def encode(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        texts = list(items)
        self.seen += texts
        seeds = [int(content_key(text)[:8], 16) for text in texts]
        return normalise([np.random.default_rng(seed).standard_normal(12) for seed in seeds])


TEXTS = [f"text {number}" for number in range(20)]


def encode(cache: EmbeddingCache, texts: list[str], encoder: CountingEncoder) -> np.ndarray:
    keys = [content_key(text) for text in texts]
    places = cache.encode(
        keys,
        lambda numbers: ((number, texts[number]) for number in numbers),
        lambda items: encoder.encode(items, "text"),
        block=6,
    )
    return cache.rows(places)[0 : len(texts)]


def test_nothing_is_encoded_twice_in_this_run_or_a_later_one(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    first = encode(EmbeddingCache(tmp_path, "f", "text", 12), [*TEXTS, *TEXTS], encoder)
    assert encoder.seen == TEXTS
    np.testing.assert_array_equal(first[:20], first[20:])
    np.testing.assert_allclose(first[:20], CountingEncoder().encode(TEXTS, "text"), atol=1e-3)
    again = encode(EmbeddingCache(tmp_path, "f", "text", 12), ["new", *TEXTS], encoder)
    assert encoder.seen == [*TEXTS, "new"]
    np.testing.assert_array_equal(again[1:], first[:20])


def test_another_encoder_shares_nothing(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    encode(EmbeddingCache(tmp_path, "one", "text", 12), TEXTS, encoder)
    encode(EmbeddingCache(tmp_path, "two", "text", 12), TEXTS, encoder)
    assert encoder.seen == TEXTS * 2


@pytest.mark.parametrize("name", ["rows.f16", "keys.bin"])
def test_a_write_cut_short_loses_only_its_end(name: str, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    whole = encode(EmbeddingCache(tmp_path, "f", "text", 12), TEXTS, encoder)
    path = tmp_path / "f" / "text" / name
    path.write_bytes(path.read_bytes()[:-5])
    cache = EmbeddingCache(tmp_path, "f", "text", 12)
    assert len(cache) == 19
    np.testing.assert_array_equal(encode(cache, TEXTS, encoder), whole)
    assert encoder.seen == [*TEXTS, TEXTS[19]]


def test_an_item_that_cannot_be_had_is_left_out_and_the_others_keep_their_rows(
    tmp_path: Path,
) -> None:
    cache = EmbeddingCache(tmp_path, "f", "text", 12)
    keys = [content_key(text) for text in TEXTS]
    lost = {0, 6, 7, 19}
    places = cache.encode(
        keys,
        lambda numbers: ((n, TEXTS[n]) for n in numbers if n not in lost),
        lambda items: CountingEncoder().encode(items, "text"),
        block=6,
    )
    assert set(np.flatnonzero(places < 0).tolist()) == lost
    held = np.flatnonzero(places >= 0)
    expected = CountingEncoder().encode([TEXTS[n] for n in held], "text")
    np.testing.assert_allclose(cache.rows(places[held])[0 : len(held)], expected, atol=1e-3)


def test_items_are_read_one_by_one_as_the_encoder_asks_for_them(tmp_path: Path) -> None:
    read, held = 0, []

    def items(numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
        nonlocal read
        for number in numbers:
            read += 1
            yield number, TEXTS[number]

    def one_by_one(texts: Iterable[str]) -> np.ndarray:
        made = []
        for text in texts:
            held.append(read - len(made))
            made.append(CountingEncoder().encode([text], "text")[0])
        return np.array(made)

    cache = EmbeddingCache(tmp_path, "f", "text", 12)
    cache.encode([content_key(text) for text in TEXTS[:6]], items, one_by_one, block=6)
    assert held == [1] * 6


def test_whoever_opens_the_store_while_another_writes_cuts_nothing(tmp_path: Path) -> None:
    encode(EmbeddingCache(tmp_path, "f", "text", 12), TEXTS, CountingEncoder())
    rows = tmp_path / "f" / "text" / "rows.f16"
    # The rows of the next keys are there, the keys not yet.
    rows.write_bytes(rows.read_bytes() + bytes(24 * 3))
    before = rows.read_bytes()
    assert len(EmbeddingCache(tmp_path, "f", "text", 12)) == len(TEXTS)
    assert len(EmbeddingCache(tmp_path, "f", "text")) == len(TEXTS)
    assert rows.read_bytes() == before


def test_processes_that_write_at_once_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(240)]
    # Each adds its own and, with all others, the last forty.
    shares = [[*texts[start:200:4], *texts[200:]] for start in range(4)]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(shares))
    writers = [
        context.Process(target=add_one_by_one, args=(tmp_path, share, barrier)) for share in shares
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    cache = EmbeddingCache(tmp_path, "f", "text", 12)
    assert len(cache) == len(texts)
    places = cache.find([content_key(text) for text in texts])
    expected = CountingEncoder().encode(texts, "text")
    np.testing.assert_allclose(cache.rows(places)[0 : len(texts)], expected, atol=1e-3)


def add_one_by_one(folder: Path, texts: list[str], barrier: Barrier) -> None:
    barrier.wait()
    for text in texts:
        cache = EmbeddingCache(folder, "f", "text", 12)
        cache.add([content_key(text)], CountingEncoder().encode([text], "text"))


def test_a_store_that_is_not_there_is_empty_to_a_reader_and_stays_so(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "f", "text")
    assert len(cache) == 0
    assert cache.find([content_key("a")]).tolist() == [-1]
    assert not list(tmp_path.iterdir())


def test_another_dimension_under_the_same_fingerprint_is_refused(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "f", "text", 12)
    with pytest.raises(ValueError, match="dimension 12; got 13"):
        EmbeddingCache(tmp_path, "f", "text", 13)


def test_equal_content_has_one_key_and_other_content_another() -> None:
    assert content_key("a") == content_key(b"a") != content_key("b")


@pytest.mark.parametrize("recent", [0, 7, 1000])
def test_what_was_added_is_found_before_and_after_the_keys_are_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr("kb.cache._RECENT", recent)
    rows = normalise(np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32))
    keys = [content_key(str(number)) for number in range(40)]
    cache = EmbeddingCache(tmp_path, "encoder", "image", 8)
    for start in range(0, 40, 4):
        cache.add(keys[start : start + 4], rows[start : start + 4])
        assert cache.find(keys).tolist() == [*range(start + 4), *[-1] * (36 - start)]
    assert len(cache) == 40
    held = EmbeddingCache(tmp_path, "encoder", "image")
    np.testing.assert_allclose(held.rows(held.find(keys))[:], rows, atol=1e-3)
