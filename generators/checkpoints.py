"""Checkpoints on disk: found where the caller says, never downloaded, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


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
