"""Which files of a model are downloaded, against a small real HTTP server in the hub's stead."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from generators.sdxl_settings import SdxlSettings
from kb.encoders.open_clip import OpenClipSettings
from pipeline.errors import ConfigError
from pipeline.models import (
    download,
    missing_bytes,
    resolve_models,
    weights_and_configuration,
)

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"

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


class _Hub(BaseHTTPRequestHandler):
    """The two endpoints of a model hub that a download asks: the listing and the files."""

    files: dict[str, bytes] = {}
    asked: list[str] = []

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.split("?")[0]
        if path.startswith("/api/models/o/m/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": "0" * 40}
                for name, body in self.files.items()
            ]
            self._answer(json.dumps(tree).encode())
        elif path.startswith("/api/models/o/m"):
            listed = [{"rfilename": name} for name in self.files]
            self._answer(json.dumps({"id": "o/m", "sha": COMMIT, "siblings": listed}).encode())
        elif (name := path.partition(f"/o/m/resolve/{COMMIT}/")[2]) in self.files:
            self.asked.append(name)
            self._answer(self.files[name], etag=f'"{name.replace("/", "-")}"')
        else:
            self.send_error(404)

    def _answer(self, body: bytes, etag: str = '"x"') -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[_Hub]]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    _Hub.files, _Hub.asked = {}, []
    yield _Hub
    server.shutdown()
    server.server_close()


def test_a_download_asks_for_the_chosen_files_alone_and_gives_the_commit(
    hub: type[_Hub],
) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors": b"w", "pytorch_model.bin": b"pickle"}
    found = resolve_models("captioner", {"model": ("o/m", None)}, Path(), offline=False)["model"]
    assert found.revision == COMMIT
    assert {path.name for path in found.path.iterdir()} == {"config.json", "model.safetensors"}
    assert set(hub.asked) == {"config.json", "model.safetensors"}


def test_a_repository_without_safetensors_is_refused_before_anything_is_fetched(
    hub: type[_Hub],
) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(ConfigError, match="captioner.model: o/m has no weights as safetensors"):
        download("captioner.model", "o/m", None, weights_and_configuration)
    assert hub.asked == []


def test_offline_a_missing_model_names_the_command_that_fetches_it(hub: type[_Hub]) -> None:
    with pytest.raises(ConfigError, match="rag4dmc fetch CONFIG"):
        resolve_models("captioner", {"model": ("o/m", None)}, Path(), offline=True)
    assert hub.asked == []


def test_what_a_download_would_take_is_asked_of_the_hub_and_nothing_is_fetched(
    hub: type[_Hub], tmp_path: Path
) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors": b"w" * 70, "pytorch_model.bin": b"p"}
    models = {"model": ("o/m", None), "gone": ("o/gone", None), "local": (str(tmp_path), None)}
    found = missing_bytes("captioner", models, Path())
    assert found == {"model": 72, "gone": None, "local": 0}
    assert hub.asked == []
