"""What cannot make a knowledge base is refused by name, and what is doubtful is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kb.embeddings import InvalidEmbedding
from kb.filtering import FilterSettings
from kb.knowledge_base import KnowledgeBase
from kb.mapping import NoCompletePairs
from kb.pairs import Pairs
from tests.kb.worlds import QUICK, World, as_pairs, quick


def test_nothing_to_retrieve_from_is_an_error_and_leaves_no_folder(
    tmp_path: Path, world: World
) -> None:
    recipe = quick(sources=["external"])
    internal = as_pairs(world.draw(300), "dataset")
    with pytest.raises(NoCompletePairs, match="sources: .* would hold no pair"):
        KnowledgeBase.build(
            tmp_path / "kb", internal, [as_pairs(world.draw_noise(200), "noise")], recipe
        )
    assert list(tmp_path.iterdir()) == []


def test_external_pairs_alone_to_retrieve_from_and_none_there_is_an_error(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    with pytest.raises(NoCompletePairs, match=r"would hold no pair, .* sources is \['external'\]"):
        KnowledgeBase.build(tmp_path / "kb", sides[0], [], quick(sources=["external"]))
    assert list(tmp_path.iterdir()) == []


def test_no_internal_pair_says_what_to_do(tmp_path: Path, world: World) -> None:
    with pytest.raises(NoCompletePairs, match="needs rows with both an image and a text"):
        KnowledgeBase.build(tmp_path / "kb", as_pairs(world.draw(0), "dataset"))


def test_an_external_set_of_another_dimension_is_named(tmp_path: Path, world: World) -> None:
    other = as_pairs(World(3, dimensions=(48, 20)).draw(30), "narrow")
    with pytest.raises(ValueError, match="'narrow': text embeddings must have dimension 48.* 20"):
        KnowledgeBase.build(tmp_path / "kb", as_pairs(world.draw(50), "dataset"), [other], QUICK)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (0.0, "all zero")])
def test_a_bad_external_embedding_is_refused_and_the_old_base_stays(
    value: float, words: str, tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    old = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    bad = world.draw(60)
    bad["image"][17] = value
    with pytest.raises(ValueError, match=f"row 17 is {words}"):
        KnowledgeBase.build(tmp_path / "kb", sides[0], [as_pairs(bad, "bad")], QUICK)
    assert KnowledgeBase.load(tmp_path / "kb").version == old.version
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_of_two_external_sets_the_irrelevant_one_is_named(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    noise = as_pairs(world.draw_noise(80), "noise")
    kb = KnowledgeBase.build(tmp_path / "kb", sides[0], [*sides[1], noise], QUICK)
    warnings = kb.manifest["purification"]["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == ["external set 'noise'"]


def test_a_threshold_on_the_wrong_scale_is_told_by_the_figures(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    recipe = quick(filter=FilterSettings(tau_inst=0.9))
    kb = KnowledgeBase.build(tmp_path / "kb", *sides, recipe)
    verdicts = pq.read_table(tmp_path / "kb" / "verdicts.parquet")
    largest = pa.compute.max(verdicts["instance_similarity"][:300]).as_py()
    assert largest < 0.9
    warnings = kb.manifest["purification"]["warnings"]
    assert f"largest s_inst {largest:.2f}, tau_inst 0.90" in warnings[0]


def test_an_id_that_comes_twice_is_named(tmp_path: Path, world: World) -> None:
    pairs = as_pairs(world.draw(40), "dataset")
    with pytest.raises(ValueError, match="'dataset-0000.*more than one pair"):
        KnowledgeBase.build(tmp_path / "kb", pairs, [pairs], QUICK)


@pytest.mark.parametrize(("side", "row"), [(0, 299), (1, 20)])
@pytest.mark.parametrize("method", [KnowledgeBase.build, KnowledgeBase.update])
def test_a_bad_embedding_is_named_by_source_and_id_before_anything_is_fitted(
    method: Any, side: int, row: int, tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    bad = [internal, external[1]][side]
    bad.embeddings["text"][row, 3] = np.inf
    name = f"{bad.table['source'][0]}, pair '{bad.table['id'][row]}'"
    with pytest.raises(InvalidEmbedding) as raised:
        method(tmp_path / "kb", internal, external, QUICK)
    assert str(raised.value) == f"{name}: text embedding in row {row} is not finite"
    assert not (tmp_path / "kb").exists()
