"""The protocol: what is tested on, what is hidden, and mask files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.protocol.split import (
    apply_mask,
    draw_mask,
    near_duplicates,
    read_mask,
    rows_that_tell,
    split,
)
from pipeline.storage.errors import ConfigError

IDS = [f"row {number}" for number in range(200)]


def test_the_split_follows_from_ids_and_seed_whatever_the_order() -> None:
    test, train = split(IDS, 0.2, 3)
    assert len(test) == 40 and sorted(test + train) == sorted(IDS)
    assert split(IDS[::-1], 0.2, 3) == (test, train)
    assert split(IDS, 0.2, 4)[0] != test


def test_a_split_without_test_or_training_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pair to test on"):
        split(IDS[:3], 0.1, 0)
    with pytest.raises(ConfigError, match="no pair to train on"):
        split(IDS[:3], 0.9, 0)


def test_a_mask_hides_the_share_half_and_half() -> None:
    mask = draw_mask(IDS, 0.7, "mixed", 0)
    assert len(mask) == 140
    assert sorted(mask.values()).count("text") == 70
    assert mask == draw_mask(IDS[::-1], 0.7, "mixed", 0)
    assert mask != draw_mask(IDS, 0.7, "mixed", 1)
    assert set(draw_mask(IDS, 0.5, "text", 0).values()) == {"text"}


def test_a_higher_rate_hides_what_a_lower_one_hides() -> None:
    low, high = (draw_mask(IDS, rate, "mixed", 0) for rate in (0.3, 0.7))
    assert low.items() <= high.items()


# Forty pictures of five rows each.
GROUPS = {row_id: IDS[number - number % 5] for number, row_id in enumerate(IDS)}


def test_rows_that_share_a_half_are_tested_on_or_trained_on_together() -> None:
    test, train = split(IDS, 0.2, 0, GROUPS)
    assert len(test) == 40 and sorted(test + train) == sorted(IDS)
    assert not {GROUPS[row_id] for row_id in test} & {GROUPS[row_id] for row_id in train}
    assert split(IDS[::-1], 0.2, 0, GROUPS) == (test, train)


def test_rows_that_share_a_half_lack_the_same_half_or_none() -> None:
    low, high = (draw_mask(IDS, rate, "mixed", 0, GROUPS) for rate in (0.3, 0.7))
    assert (len(low), len(high)) == (60, 140) and low.items() <= high.items()
    for name in set(GROUPS.values()):
        members = [row_id for row_id in IDS if GROUPS[row_id] == name]
        assert len({high.get(row_id) for row_id in members}) == 1
    assert list(high.values()).count("text") == 70


def test_a_group_of_many_rows_does_not_decide_a_share() -> None:
    large = dict.fromkeys(IDS[:40], IDS[0])
    for seed in range(20):
        assert len(split(IDS, 0.2, seed, large)[0]) == 40
        assert len(draw_mask(IDS, 0.1, "mixed", seed, large)) == 20


def test_a_row_that_shows_what_is_hidden_in_another_tells() -> None:
    halves = {row_id: {"image": "picture", "text": row_id} for row_id in "abcd"}
    halves |= {"e": {"image": "other", "text": "a"}, "f": {"image": "third", "text": "third"}}
    groups = dict.fromkeys("abcde", "a") | {"f": "f"}
    assert rows_that_tell(halves, {"a": "image"}, halves, groups) == set("bcd")
    assert rows_that_tell(halves, dict.fromkeys("abcd", "image"), halves, groups) == set()
    assert rows_that_tell(halves, {"a": "text", "f": "text"}, halves, groups) == {"e"}
    # A label is no row's own: rows of other groups that have it do not tell.
    assert rows_that_tell(halves, {"a": "text"}, halves, groups | {"e": "e"}) == set()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_mask_file_gives_test_set_and_hidden_halves(tmp_path: Path, suffix: str) -> None:
    table = pa.table(
        {"id": ["1", "2", "3", "4"], "missing": ["text", "image", "test", "none"], "x": [1] * 4}
    )
    path = tmp_path / f"mask{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv":
        lines = [f"{r['id']},{r['missing']},1" for r in table.to_pylist()]
        path.write_text("\n".join(["id,missing,x", *lines]))
    else:
        lines = [f'{{"id": "{r["id"]}", "missing": "{r["missing"]}"}}' for r in table.to_pylist()]
        path.write_text("\n".join(lines))
    test, train, mask = apply_mask(["1", "2", "3", "4", "5"], read_mask(path), path.name)
    assert (test, train) == (["3"], ["1", "2", "4", "5"])
    assert mask == {"1": "text", "2": "image"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,missing\n1,both\n", "row 0: missing must be one of"),
        ("id,missing\n1,text\n1,image\n", "row 1: id '1' stands twice"),
        ("id,hidden\n1,text\n", "no column 'missing'"),
        ("", "can't be read"),
    ],
)
def test_a_wrong_mask_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mask.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_mask(path)


def test_a_mask_of_other_rows_or_of_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="names 1 rows .* first '9'"):
        apply_mask(["1"], {"9": "text"}, "m.csv")
    with pytest.raises(ConfigError, match="hides nothing"):
        apply_mask(["1"], {"1": "none"}, "m.csv")


def test_near_duplicates_are_found_by_cosine() -> None:
    test = np.eye(3, dtype=np.float32)[:2]
    rows = np.array([[1, 0.1, 0], [0, 0, 1], [1, 1, 0]], np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert near_duplicates(rows, test, 0.95).tolist() == [True, False, False]
    assert near_duplicates(rows, test, 0.7).tolist() == [True, False, True]
    assert not near_duplicates(rows, test, 1.1).any()
