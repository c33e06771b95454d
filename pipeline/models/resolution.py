"""Where a model's files are: a local folder, or the snapshot of a commit of a hub model.

Parts load from the folder that they are handed; nothing but this module and `hub` downloads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pipeline.models.hub import NotFetched, Wanted, download, download_bytes, snapshot
from pipeline.storage.errors import ConfigError

WHOLE_FILE_BYTES = 64 << 20
STRIDE_BYTES = 2 << 20
SAMPLE_BYTES = 16 << 10

# Code of the model's own runs only where a part's settings trust it.
CONFIGURATION = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")

# Of a role and all files of its repository, those that the part reads; None for the usual ones.
ChooseFiles = Callable[[str, Sequence[str]], Sequence[str] | None]


@dataclass(frozen=True)
class ResolvedModel:
    """A model's name in the config, its local folder, and the revision that its files are."""

    name: str
    path: Path
    revision: str


def resolve_models(
    section: str,
    models: Mapping[str, tuple[str, str | None]],
    base: Path,
    offline: bool,
    choose: ChooseFiles | None = None,
    renew: bool = False,
) -> dict[str, ResolvedModel]:
    """Resolve each role's (name or path, revision) to local files.

    Parameters
    ----------
    section
        The part's place in the config, for errors.
    models
        Role to (hub id or path, pinned revision or None). A path is relative to `base`, and starts
        with `.`, `/`, `~` or `local-dir:`, or names something that exists.
    base
        The config's folder.
    offline
        Download nothing.
    choose
        Which files of a model the part reads; `weights_and_configuration` by default.
    renew
        Ask the hub for each model, also where it is here, and download what it has now.

    Raises
    ------
    ConfigError
        A folder that is not there, or, offline, a model that was not fetched.
    """
    found = {}
    for role, (name, revision) in models.items():
        field, wanted = f"{section}.{role}", _wanted(role, choose)
        folder = _local_folder(field, name, base)
        if folder is not None:
            found[role] = ResolvedModel(name, folder, folder_revision(folder, wanted))
            continue
        path = (
            download(field, name, revision, wanted)
            if renew
            else snapshot(field, name, revision, offline, wanted)
        )
        found[role] = ResolvedModel(name, path, path.name)
    return found


def _wanted(role: str, choose: ChooseFiles | None) -> Wanted:
    def wanted(files: Sequence[str]) -> Sequence[str]:
        chosen = None if choose is None else choose(role, files)
        return weights_and_configuration(files) if chosen is None else chosen

    return wanted


def _local_folder(field: str, name: str, base: Path) -> Path | None:
    """The folder that a name means, or None where it is a hub id."""
    plain = name.removeprefix("local-dir:")
    path = (base / Path(plain).expanduser()).resolve()
    if plain != name or plain.startswith((".", "/", "~")) or path.is_dir():
        if not path.is_dir():
            raise ConfigError(f"{field}: no such folder: {path}")
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", plain):
        raise ConfigError(
            f"{field}: must be a folder or a hub id such as owner/model; got {name!r}"
        )
    return None


def missing_bytes(
    section: str,
    models: Mapping[str, tuple[str, str | None]],
    base: Path,
    choose: ChooseFiles | None = None,
) -> dict[str, int | None]:
    """Bytes that are to be downloaded of each role's model: 0 where it is here, None if not known.

    Parameters are those of `resolve_models`; the hub is asked for the sizes, nothing is fetched.
    """
    found: dict[str, int | None] = {}
    for role, (name, revision) in models.items():
        try:
            resolve_models(section, {role: (name, revision)}, base, offline=True, choose=choose)
            found[role] = 0
        except NotFetched:
            found[role] = download_bytes(name, revision, _wanted(role, choose))
    return found


def weights_and_configuration(files: Sequence[str]) -> list[str]:
    """Choose the weights and what configures them among the files of a repository.

    A model keeps both at the top; copies of the weights in other formats, and for other loaders,
    lie beside them. A diffusers pipeline keeps them one folder deep. Pickles are never chosen.
    """
    if "model_index.json" in files:
        patterns = [*CONFIGURATION, "*.safetensors"]
        kept = [f for f in files if f.count("/") == 1 and any(fnmatch(f, p) for p in patterns)]
        return [f for f in files if f == "model_index.json" or f in kept]
    top = [f for f in files if "/" not in f]
    configuration = [f for f in top if any(fnmatch(f, p) for p in CONFIGURATION)]
    for pattern in ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors"):
        if weights := [f for f in top if fnmatch(f, pattern)]:
            return configuration + weights
    return configuration


def folder_revision(folder: Path, wanted: Wanted) -> str:
    """A digest of the files of a model folder that a part reads, in place of a commit.

    The choice is that of a download, so neither hidden files nor what lies beside the model count.
    Where it has no weights as safetensors, whatever the part reads is not known, and every file
    counts that is not hidden.

    Of files over 64 MB, the size counts, 16 KB in every 2 MB, and the end. A change of 2 MB running
    is always seen, and so are weights trained as a whole, converted or merged; what touches a few
    short stretches alone, such as the biases of one layer, may not be.
    """
    visible = _visible(folder)
    read = sorted(wanted(visible))
    if not any(file.endswith(".safetensors") for file in read):
        read = visible
    digest = hashlib.blake2b(digest_size=16)
    for name in read:
        path = folder / name
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE_FILE_BYTES:
                digest.update(file.read())
                continue
            for start in [*range(0, size, STRIDE_BYTES), size - SAMPLE_BYTES]:
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))
    return f"files-{digest.hexdigest()}"


def _visible(folder: Path) -> list[str]:
    """Files of a folder that are not hidden, by relative path; linked folders are followed."""
    found: list[str] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            path.relative_to(folder).as_posix()
            for path in (Path(here, name) for name in files if not name.startswith("."))
            if path.is_file()
        ]
    return sorted(found)
