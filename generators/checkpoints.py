"""Checkpoints: the settings of whatever runs one, and its folder on disk.

A folder is found where the caller says, never downloaded, and never read as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from generators.device import Dtype

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


class CheckpointSettings(BaseModel):
    """Settings of every generator whose model runs on this machine."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model id, or a folder in the same format.")
    revision: str | None = Field(None, description="Commit of the model; None is resolved once.")
    device: str = Field(
        "auto",
        description="Where the model runs: auto (cuda where there is one), cpu, cuda, cuda:1.",
    )
    dtype: Dtype = Field(
        "auto",
        description="Precision of the weights; auto is float32 on cpu, and on cuda the checkpoint's"
        " own half precision, or bfloat16.",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Candidates that go through the model at once, halved when out of memory; auto"
        " is by the memory that is free once a first few are done.",
    )

    def models(self) -> dict[str, tuple[str, str | None]]:
        """The one checkpoint."""
        return {"model": (self.model, self.revision)}

    def identity(self) -> dict[str, Any]:
        """All but where the model runs and how many candidates go through it at once."""
        return self.model_dump(mode="json", exclude={"device", "batch_size"})


def local_folder(paths: Mapping[str, Path], role: str, marker: str) -> Path:
    """The folder of a model, checked for the file that names its format.

    Raises
    ------
    ValueError
        When the role has no folder, or it isn't a checkpoint of this format, or it holds its weights
        only as pickles, which run code when they are read.
    """
    if role not in paths:
        raise ValueError(f"no folder was given for the model in role {role!r}")
    folder = Path(paths[role])
    if not (folder / marker).is_file():
        raise ValueError(
            f"{role} folder {str(folder)!r} has no {marker}; it is not such a checkpoint"
        )
    require_safetensors(folder)
    return folder


def own_dtype(folder: Path) -> str | None:
    """The precision that a checkpoint of transformers says it is written in, such as "bfloat16"."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for held in (config, config.get("text_config")):
        for name in ("dtype", "torch_dtype"):
            if isinstance(held, dict) and isinstance(held.get(name), str):
                return str(held[name]).removeprefix("torch.")
    return None


def require_safetensors(folder: Path) -> None:
    """Refuse a folder that has weights as pickles and none as safetensors.

    Raises
    ------
    ValueError
        Names the folder and the pickle.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    if any(path.suffix == ".safetensors" for path in files):
        return
    pickles = sorted(path.name for path in files if path.suffix in PICKLE_SUFFIXES)
    found = f"only {pickles[0]}" if pickles else "no weights at all"
    raise ValueError(
        f"model folder {str(folder)!r} holds {found}; weights must be safetensors, "
        "since a pickle runs code when it is read"
    )


@contextmanager
def loading() -> Iterator[None]:
    """Load models without a trace: random state as it was, and no progress bars.

    Building a model may draw from torch's global generators. The bars of transformers and diffusers
    run inside whatever shows the progress of the run, and each load is logged anyway.
    """
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        for bars in (diffusers_logging, transformers_logging):
            if bars.is_progress_bar_enabled():
                bars.disable_progress_bar()
                stack.callback(bars.enable_progress_bar)
        yield
