"""Which files of a model are read: chosen from a hub's listing, or from a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from generators import IMAGE_GENERATORS
from generators.sdxl_settings import SdxlSettings
from kb.encoders import ENCODERS
from kb.encoders.open_clip import OpenClipSettings
from kb.encoders.pair import PairSettings
from pipeline.models.components import Component
from pipeline.models.resolution import folder_revision, resolve_models, weights_and_configuration
from tests.worlds import CHECKPOINTS

# As stabilityai/stable-diffusion-xl-base-1.0 lists them, but for pictures.
SDXL = [
    ".gitattributes",
    "LICENSE.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "sd_xl_base_1.0.safetensors",
    "sd_xl_base_1.0_0.9vae.safetensors",
    "text_encoder/config.json",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.onnx",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.fp16.safetensors",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/model.onnx_data",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.fp16.safetensors",
    "vae_encoder/model.onnx",
]
ADAPTER = [
    "README.md",
    "models/image_encoder/model.safetensors",
    "sdxl_models/image_encoder/config.json",
    "sdxl_models/image_encoder/model.safetensors",
    "sdxl_models/image_encoder/pytorch_model.bin",
    "sdxl_models/ip-adapter_sdxl.bin",
    "sdxl_models/ip-adapter_sdxl.safetensors",
    "sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
]


def weights(files: list[str]) -> list[str]:
    return [file for file in files if file.endswith(".safetensors")]


def test_sdxl_downloads_one_precision_and_a_plain_part_where_there_is_no_other() -> None:
    assert weights(SdxlSettings().files("model", SDXL)) == [
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    for settings in (SdxlSettings(dtype="float32"), SdxlSettings(variant=None)):
        chosen = settings.files("model", SDXL)
        assert all(".fp16." not in file for file in chosen) and len(weights(chosen)) == 4
        assert {"model_index.json", "tokenizer_2/merges.txt", "vae/config.json"} <= set(chosen)


def test_an_sdxl_with_half_precision_alone_downloads_it_whatever_the_dtype() -> None:
    listed = [file for file in SDXL if "unet" not in file or "fp16" in file or "config" in file]
    settings = SdxlSettings(dtype="float32")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in settings.files("model", listed)


def test_an_ip_adapter_downloads_its_weights_and_its_image_encoder_alone() -> None:
    assert SdxlSettings(grounding="ip_adapter").files("ip_adapter", ADAPTER) == [
        "sdxl_models/image_encoder/config.json",
        "sdxl_models/image_encoder/model.safetensors",
        "sdxl_models/ip-adapter_sdxl.safetensors",
    ]


def test_open_clip_downloads_its_own_weights_and_not_the_copy_for_transformers() -> None:
    listed = ["config.json", "model.safetensors", "open_clip_config.json", "merges.txt"]
    listed += ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    assert weights(OpenClipSettings(model="o/m").files("model", listed)) == [
        "open_clip_model.safetensors"
    ]


def test_a_pair_of_encoders_downloads_what_each_of_them_reads(tmp_path: Path) -> None:
    for name in ("config.json", "open_clip_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    settings = PairSettings.model_validate(
        {
            "image": {"kind": "open_clip", "model": "o/m"},
            "text": {"kind": "transformers", "model": "o/m"},
        }
    )
    listed = ["config.json", "model.safetensors", "open_clip_model.safetensors"]
    assert settings.files("image", listed) == ["config.json", "open_clip_model.safetensors"]
    assert settings.files("text", listed) is None
    models = {"text": (str(tmp_path), None)}
    usual = resolve_models("encoder", models, Path(), offline=True)
    assert resolve_models("encoder", models, Path(), True, settings.files) == usual


@pytest.mark.parametrize(
    ("listed", "kept"),
    [
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (
            ["consolidated.safetensors", "model-1-of-2.safetensors", "model-2-of-2.safetensors"],
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors"],
        ),
        (["original/model.safetensors", "weights.safetensors"], ["weights.safetensors"]),
        (["pytorch_model.bin"], []),
    ],
)
def test_a_model_of_transformers_downloads_one_copy_of_its_weights(
    listed: list[str], kept: list[str]
) -> None:
    assert weights_and_configuration([*listed, "config.json"]) == ["config.json", *kept]


def test_code_and_vocabulary_that_a_model_brings_come_along() -> None:
    listed = ["config.json", "modeling_own.py", "qwen.tiktoken", "model.safetensors", "README.md"]
    assert set(weights_and_configuration(listed)) == set(listed) - {"README.md"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with the weights of a real tiny one, as a download into a folder leaves it."""
    made = tmp_path / "model"
    (made / ".cache/huggingface").mkdir(parents=True)
    (made / ".cache/huggingface/model.metadata").write_text("1")
    shutil.copy(next((CHECKPOINTS / "sdxl/unet").glob("*.safetensors")), made / "model.safetensors")
    (made / "config.json").write_text("{}")
    (made / "README.md").write_text("read me")
    return made


def test_what_a_part_does_not_read_leaves_the_revision_of_a_folder(folder: Path) -> None:
    before = folder_revision(folder, weights_and_configuration)
    (folder / "README.md").write_text("read me again")
    (folder / ".DS_Store").write_bytes(b"finder")
    (folder / ".cache/huggingface/model.metadata").write_text("2")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert folder_revision(folder, weights_and_configuration) == before
    (folder / "config.json").write_text('{"a": 1}')
    assert folder_revision(folder, weights_and_configuration) != before


def test_a_folder_of_unknown_weights_is_known_by_all_that_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(b"1")
    before = folder_revision(tmp_path, weights_and_configuration)
    (tmp_path / ".DS_Store").write_bytes(b"finder")
    assert folder_revision(tmp_path, weights_and_configuration) == before
    (tmp_path / "own.npz").write_bytes(b"2")
    assert folder_revision(tmp_path, weights_and_configuration) != before


@pytest.mark.parametrize("start", [0, 33 << 20, (100 << 20) - 5])
def test_two_changed_megabytes_anywhere_in_large_weights_change_the_revision(
    start: int, folder: Path
) -> None:
    weights = folder / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate((100 << 20) + 7)
    before = folder_revision(folder, weights_and_configuration)
    with weights.open("r+b") as file:
        file.seek(start)
        file.write(b"x" * min(2 << 20, (100 << 20) + 7 - start))
    assert folder_revision(folder, weights_and_configuration) != before


def test_weights_in_a_linked_folder_count(tmp_path: Path) -> None:
    unet = tmp_path / "elsewhere"
    shutil.copytree(CHECKPOINTS / "sdxl/unet", unet)
    checkpoint = tmp_path / "sdxl"
    shutil.copytree(CHECKPOINTS / "sdxl", checkpoint, ignore=shutil.ignore_patterns("unet"))
    (checkpoint / "unet").symlink_to(unet)
    (checkpoint / "again").symlink_to(checkpoint)
    before = resolve_models(
        "image_generator", {"model": (str(checkpoint), None)}, Path(), True, SdxlSettings().files
    )
    weights = next(unet.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert before != resolve_models(
        "image_generator", {"model": (str(checkpoint), None)}, Path(), True, SdxlSettings().files
    )


@pytest.mark.parametrize(
    ("section", "values", "inner"),
    [
        (
            "image_generator",
            {"kind": "sdxl", "model": "base", "grounding": "ip_adapter"},
            ("ip_adapter", {"model": "nested"}),
        ),
        (
            "encoder",
            {"kind": "pair", "text": {"kind": "transformers", "model": "base"}},
            ("image", {"kind": "transformers", "model": "nested"}),
        ),
    ],
)
def test_a_model_within_a_model_is_known_by_its_content_wherever_it_lies(
    section: str, values: dict[str, Any], inner: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    registry = ENCODERS if section == "encoder" else IMAGE_GENERATORS
    field, part = inner

    def folder(name: str, content: bytes) -> Path:
        for file in (
            "config.json",
            "model.safetensors",
            "model_index.json",
            "unet/a.safetensors",
            "sdxl_models/ip-adapter_sdxl.safetensors",
            "sdxl_models/image_encoder/config.json",
            "sdxl_models/image_encoder/model.safetensors",
        ):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / name

    folder("base", b"{}")

    def identity(nested: Path, **pinned: str) -> dict[str, Any]:
        changed = part | {"model": str(nested)} | pinned
        chosen = Component.choose(section, values | {field: changed}, registry)
        return chosen.identity(chosen.resolve(tmp_path, True))

    here, elsewhere = folder("here", b"{}"), folder("elsewhere", b"{}")
    other = folder("other", b"{ }")
    assert identity(here) == identity(elsewhere) == identity(here, revision="main")
    assert identity(here) != identity(other)
