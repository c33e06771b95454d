"""What tells a model: the content of its files, wherever they lie and however deep it is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kb.encoders import ENCODERS
from pipeline.models.components import Component
from tests.quick_parts import QuickCaptioner


def identity(encoder: dict[str, Any], base: Path) -> dict[str, Any]:
    component = Component.choose("encoder", encoder, ENCODERS)
    return component.identity(component.resolve(base, offline=True))


def model(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def pair(image: Path, text: Path) -> dict[str, Any]:
    return {
        "kind": "pair",
        "image": {"kind": "transformers", "model": str(image), "modalities": ["image"]},
        "text": {"kind": "transformers", "model": str(text), "modalities": ["text"]},
    }


def test_a_nested_model_that_is_moved_is_the_same_model(tmp_path: Path) -> None:
    image, text = model(tmp_path / "a" / "image", b"1"), model(tmp_path / "a" / "text", b"2")
    before = identity(pair(image, text), tmp_path)
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = pair(tmp_path / "b" / "image", Path("b/text"))
    assert identity(moved, tmp_path) == before
    (tmp_path / "b" / "text" / "model.safetensors").write_bytes(b"3")
    assert identity(moved, tmp_path) != before
    assert str(tmp_path) not in str(before)


def test_two_models_that_change_places_are_another_pair(tmp_path: Path) -> None:
    image, text = model(tmp_path / "image", b"1"), model(tmp_path / "text", b"2")
    assert identity(pair(image, text), tmp_path) != identity(pair(text, image), tmp_path)


class Nameless(QuickCaptioner.Settings):
    """Leaves its kind out of its identity."""

    def identity(self) -> dict[str, Any]:
        return {}


class One(QuickCaptioner):
    Settings = Nameless


class Other(QuickCaptioner):
    Settings = Nameless


def test_two_classes_are_told_apart_though_neither_names_itself() -> None:
    one, other = (
        Component.choose("captioner", {"kind": f"{__name__}:{name}"}, {}).identity({})
        for name in ("One", "Other")
    )
    assert one != other
