from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from kb.knowledge_base import DamagedKnowledgeBase, KnowledgeBase
from kb.pairs import Pairs
from kb.storage import damaged_files, digest_files, replacing, version_of
from tests.kb.worlds import QUICK, World, as_pairs, together


@pytest.fixture
def world() -> World:
    return World(0)


@pytest.fixture
def sides(world: World) -> tuple[Pairs, list[Pairs]]:
    external = as_pairs(together(world.draw(150), world.draw_noise(50)), "web")
    return as_pairs(world.draw(200), "dataset"), [external]


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """All that lies below a folder, with when it was written."""
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*")}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_a_damaged_index_is_refused_by_a_reader_and_built_again_by_an_update(
    harm: Callable[[Path], None],
    tmp_path: Path,
    sides: tuple[Pairs, list[Pairs]],
    world: World,
    caplog: pytest.LogCaptureFixture,
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    queries = world.draw(5)["image"]
    expected = built.retriever.retrieve(queries, "image", m=3)
    harm(tmp_path / "kb" / "indexes" / "image.faiss")
    before = state(tmp_path)
    with pytest.raises(DamagedKnowledgeBase, match=r"indexes/image\.faiss: missing or damaged"):
        KnowledgeBase.load(tmp_path / "kb")
    assert state(tmp_path) == before
    with caplog.at_level(logging.INFO):
        KnowledgeBase.update(tmp_path / "kb", *sides, QUICK)
    assert "rebuilding damaged index files: indexes/image.faiss" in caplog.text
    assert "building the knowledge base" not in caplog.text
    loaded = KnowledgeBase.load(tmp_path / "kb")
    assert loaded.retriever.retrieve(queries, "image", m=3) == expected
    assert loaded.manifest["indexes"]["image"] == loaded.retriever.indexes["image"].describe()


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["embeddings/text.npy", "pairs.arrow", "mapping/mapping.json"])
def test_other_damage_is_found_by_digest_and_update_builds_anew(
    harm: Callable[[Path], None], name: str, tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    harm(tmp_path / "kb" / name)
    with pytest.raises(DamagedKnowledgeBase, match=name):
        KnowledgeBase.load(tmp_path / "kb")
    assert KnowledgeBase.update(tmp_path / "kb", *sides, QUICK).version == built.version
    KnowledgeBase.load(tmp_path / "kb")


def test_a_folder_without_a_manifest_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DamagedKnowledgeBase, match=r"manifest\.json"):
        KnowledgeBase.load(tmp_path)


def test_a_build_killed_between_the_two_renames_is_undone_by_an_update_and_by_no_reader(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], caplog: pytest.LogCaptureFixture
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    (tmp_path / "kb").rename(tmp_path / "kb.retired")
    before = state(tmp_path)
    with pytest.raises(DamagedKnowledgeBase):
        KnowledgeBase.load(tmp_path / "kb")
    assert state(tmp_path) == before
    with caplog.at_level(logging.INFO):
        assert KnowledgeBase.update(tmp_path / "kb", *sides, QUICK).version == built.version
    assert "building the knowledge base" not in caplog.text


def test_an_embedding_file_of_the_right_size_and_wrong_bytes_is_found_by_its_digest(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    flip(tmp_path / "kb" / "embeddings" / "image.npy")
    assert damaged_files(built.folder, built.manifest, thorough=False) == []
    assert damaged_files(built.folder, built.manifest) == ["embeddings/image.npy"]


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", '{"format_version": 999}', json.dumps({"pairs": 3})]
)
def test_a_manifest_that_is_none_is_damage_and_update_builds_anew(
    manifest: str, tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    (tmp_path / "kb" / "manifest.json").write_text(manifest)
    with pytest.raises(DamagedKnowledgeBase, match=r"manifest\.json"):
        KnowledgeBase.load(tmp_path / "kb")
    assert KnowledgeBase.update(tmp_path / "kb", *sides, QUICK).version == built.version


def test_a_folder_takes_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replacing(tmp_path / "kb") as building:
            (building / "file").write_text(content)
            if content == "new":
                assert (tmp_path / "kb" / "file").read_text() == "old"
    with pytest.raises(KeyError), replacing(tmp_path / "kb") as building:
        (building / "file").write_text("broken")
        raise KeyError
    assert (tmp_path / "kb" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_what_a_killed_build_left_beside_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "kb.building").mkdir()
    (tmp_path / "kb.building" / "rest").write_text("half")
    with replacing(tmp_path / "kb") as building:
        assert list(building.iterdir()) == []
        (building / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_the_version_is_of_what_is_retrieved_and_not_of_indexes_and_places(tmp_path: Path) -> None:
    (tmp_path / "indexes").mkdir()
    (tmp_path / "embeddings").mkdir()
    elsewhere = ("indexes/image.faiss", "pairs.arrow", "known.parquet", "verdicts.parquet")
    for name in (*elsewhere, "embeddings/image.npy"):
        (tmp_path / name).write_text(name)

    def version(*ids: list[str], k: int = 10) -> str:
        return version_of(digest_files(tmp_path), ids, {"k": k})

    before = version(["a", "b"], ["c"])
    for name in elsewhere:
        (tmp_path / name).write_text("other places and other rejects")
    assert version(["a"], ["b", "c"]) == before
    assert version(["a", "bc"]) != before
    assert version(["a", "b", "c"], k=5) != before
    (tmp_path / "embeddings" / "image.npy").write_text("other pairs")
    assert version(["a", "b", "c"]) != before
