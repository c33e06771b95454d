"""Where a model's files are: a local folder, or the snapshot of a pinned revision of a hub model.

Parts load from the folder that they are handed; nothing but this module downloads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from pipeline.errors import ConfigError

WHOLE_FILE_BYTES = 64 << 20
EDGE_BYTES = 1 << 20

CONFIGURATION = ("*.json", "*.txt", "*.model", "*.jinja")

# Of a role and all files of its repository, those that the part reads.
ChooseFiles = Callable[[str, Sequence[str]], Sequence[str]]


class NotFetched(ConfigError):
    """A model of the hub is not on this machine, and nothing is to be downloaded."""


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
        Which files of a hub model the part reads; `weights_and_configuration` by default.

    Raises
    ------
    ConfigError
        A folder that is not there, or, offline, a model that was not fetched.
    """

    def wanted(role: str) -> Callable[[Sequence[str]], Sequence[str]]:
        return weights_and_configuration if choose is None else partial(choose, role)

    return {
        role: _resolve(f"{section}.{role}", name, revision, base, offline, wanted(role))
        for role, (name, revision) in models.items()
    }


def _resolve(
    field: str,
    name: str,
    revision: str | None,
    base: Path,
    offline: bool,
    wanted: Callable[[Sequence[str]], Sequence[str]],
) -> ResolvedModel:
    plain = name.removeprefix("local-dir:")
    path = (base / Path(plain).expanduser()).resolve()
    if plain != name or plain.startswith((".", "/", "~")) or path.is_dir():
        if not path.is_dir():
            raise ConfigError(f"{field}: no such folder: {path}")
        return ResolvedModel(name, path, folder_revision(path))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", plain):
        raise ConfigError(
            f"{field}: must be a folder or a hub id such as owner/model; got {name!r}"
        )
    path = _snapshot(field, plain, revision, offline, wanted)
    return ResolvedModel(name, path, path.name)


def _snapshot(
    field: str,
    repo: str,
    revision: str | None,
    offline: bool,
    wanted: Callable[[Sequence[str]], Sequence[str]],
) -> Path:
    """The snapshot folder of a hub model, whose name is the commit."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True)
        )
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass
    if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes"):
        raise NotFetched(
            f"{field}: {repo} is not on this machine and downloading is off;"
            " fetch it with: rag4dmc fetch CONFIG"
        )
    return download(field, repo, revision, wanted)


def download(
    field: str,
    repo: str,
    revision: str | None,
    wanted: Callable[[Sequence[str]], Sequence[str]],
) -> Path:
    """Download the files of a hub model that a part reads; the revision is resolved to a commit.

    Raises
    ------
    ConfigError
        The repository can't be reached, or has no weights as safetensors.
    """
    import huggingface_hub

    try:
        files = huggingface_hub.list_repo_files(repo, revision=revision)
        chosen = list(wanted(files))
        if any(file.endswith(".safetensors") for file in chosen):
            return Path(
                huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=chosen)
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{field}: {repo} can't be downloaded: {reason}") from None
    raise ConfigError(
        f"{field}: {repo} has no weights as safetensors at revision {revision or 'main'};"
        " pickles are never loaded"
    )


def missing_bytes(
    section: str,
    models: Mapping[str, tuple[str, str | None]],
    base: Path,
    choose: ChooseFiles | None = None,
) -> dict[str, int | None]:
    """Bytes that are to be downloaded of each role's model: 0 where it is here, None if not known.

    Parameters are those of `resolve_models`; the hub is asked for the sizes, nothing is fetched.
    """
    import huggingface_hub

    found: dict[str, int | None] = {}
    for role, (name, revision) in models.items():
        wanted = weights_and_configuration if choose is None else partial(choose, role)
        try:
            resolve_models(section, {role: (name, revision)}, base, offline=True)
            found[role] = 0
        except NotFetched:
            try:
                tree = huggingface_hub.list_repo_tree(name, recursive=True, revision=revision)
                sizes = {entry.path: getattr(entry, "size", 0) for entry in tree}
                found[role] = sum(sizes[file] for file in wanted(list(sizes)))
            except Exception:  # no network, no such model: `rag4dmc fetch` says why
                found[role] = None
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


def folder_revision(folder: Path) -> str:
    """A digest of a model folder's files, in place of a commit.

    Files over 64 MB count by their size, their first and their last megabyte.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE_FILE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(EDGE_BYTES))
                file.seek(-EDGE_BYTES, os.SEEK_END)
                digest.update(file.read())
    return f"files-{digest.hexdigest()}"
