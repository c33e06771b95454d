from __future__ import annotations

from collections.abc import Iterable
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
    return cache.encode(keys, texts.__getitem__, encoder, block=6)[0 : len(texts)]


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


def test_another_dimension_under_the_same_fingerprint_is_refused(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "f", "text", 12)
    with pytest.raises(ValueError, match="dimension 12; got 13"):
        EmbeddingCache(tmp_path, "f", "text", 13)


def test_equal_content_has_one_key_and_other_content_another() -> None:
    assert content_key("a") == content_key(b"a") != content_key("b")
