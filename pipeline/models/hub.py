"""Models of the hub: what this machine's cache holds of them, and what is downloaded into it.

A model without a pinned commit stays at the one that was fetched until it is fetched again. The
cache's refs can't tell which that was, since every program that asks for the model moves them; so
one of our own stands beside them, which also keeps the snapshot from being pruned.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from pipeline.storage.errors import ConfigError

logger = logging.getLogger(__name__)

# Of all files of a repository, those that a part reads.
Wanted = Callable[[Sequence[str]], Sequence[str]]

OWN_REFS = "rag4dmc"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"(.*)-\d+-of-0*(\d+)\.safetensors")


class NotFetched(ConfigError):
    """A model of the hub is not on this machine, and nothing is to be downloaded."""


def snapshot(field: str, repo: str, revision: str | None, offline: bool, wanted: Wanted) -> Path:
    """The folder, named by its commit, where all wanted files of a model are.

    Without a pinned revision it is the commit that was fetched; files that are missing are
    downloaded at that commit. A snapshot that another program left in the cache is taken, and kept
    to, once it is known to be whole: by the listing of its repository; or, where there is none and
    the hub can't be asked, by what can be seen: it has weights, and every shard of them.

    Raises
    ------
    NotFetched
        Files are missing, and `offline` or ``HF_HUB_OFFLINE`` forbids to download them.
    ConfigError
        The download failed; see `download`.
    """
    import huggingface_hub

    offline = offline or huggingface_hub.is_offline_mode()
    kept = _kept(repo, revision)
    commit = kept or _ref(repo, revision or "main")
    if commit and _whole(repo, commit, wanted, offline):
        _keep(repo, revision, commit)
        return _snapshots(repo) / commit
    if offline:
        raise NotFetched(
            f"{field}: {repo} is not on this machine and downloading is off;"
            " fetch it with: rag4dmc fetch CONFIG"
        )
    try:
        return download(field, repo, revision, wanted, kept)
    except ConfigError as error:
        if commit is None or not _whole(repo, commit, wanted, offline=True):
            raise
        logger.warning("%s; it is taken as it is in the cache, at %s", error, commit)
        _keep(repo, revision, commit)
        return _snapshots(repo) / commit


def download(
    field: str, repo: str, revision: str | None, wanted: Wanted, commit: str | None = None
) -> Path:
    """Download the wanted files that are missing or cut short, and keep to that commit from now on.

    Parameters
    ----------
    commit
        Where given, the one to download; otherwise what the hub has at `revision` now.

    Raises
    ------
    ConfigError
        The repository can't be reached, or has no weights as safetensors.
    """
    import huggingface_hub

    try:
        info = huggingface_hub.model_info(repo, revision=commit or revision)
        chosen = list(wanted([file.rfilename for file in info.siblings]))
        if _has_weights(chosen):
            folder = Path(
                huggingface_hub.snapshot_download(repo, revision=info.sha, allow_patterns=chosen)
            )
            if cut := _missing(folder, repo, info.sha, chosen):
                # The cache takes a file for whole because it is there.
                for file in cut:
                    (folder / file).resolve().unlink(missing_ok=True)
                    (folder / file).unlink(missing_ok=True)
                huggingface_hub.snapshot_download(repo, revision=info.sha, allow_patterns=chosen)
            _keep(repo, revision, info.sha)
            return folder
    except Exception as error:
        raise ConfigError(f"{field}: {repo} can't be downloaded: {_reason(error)}") from None
    raise ConfigError(
        f"{field}: {repo} has no weights as safetensors at revision {commit or revision or 'main'};"
        " pickles are never loaded"
    )


def download_bytes(repo: str, revision: str | None, wanted: Wanted) -> int | None:
    """Bytes of the wanted files that are not here; None where the hub does not tell."""
    import huggingface_hub

    try:
        at = _kept(repo, revision) or revision
        info = huggingface_hub.model_info(repo, revision=at, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings}
        here = _snapshots(repo) / info.sha
        return sum(sizes[file] for file in wanted(list(sizes)) if not (here / file).is_file())
    except Exception:  # no network, no such model: `rag4dmc fetch` says why
        return None


def _whole(repo: str, commit: str, wanted: Wanted, offline: bool) -> bool:
    """Whether all wanted files of a commit are here."""
    folder = _snapshots(repo) / commit
    sizes = _listing(repo, commit)
    if sizes is not None:
        chosen = wanted(list(sizes))
        return _has_weights(chosen) and not _missing(folder, repo, commit, chosen)
    if not offline:
        return False
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    chosen = wanted(sorted(present))
    shards = Counter(shard.groups() for shard in map(_SHARD.fullmatch, chosen) if shard)
    return _has_weights(chosen) and all(here == int(of) for (_, of), here in shards.items())


def _has_weights(files: Sequence[str]) -> bool:
    return any(file.endswith(".safetensors") for file in files)


def _listing(repo: str, commit: str) -> dict[str, int] | None:
    """Bytes of every file of a commit, as the cache noted them at the download, if it did."""
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        files = huggingface_hub.get_cached_repo_tree(repo, revision=commit)
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path: file.size for file in files}


def _missing(folder: Path, repo: str, commit: str, files: Sequence[str]) -> list[str]:
    """Those files that are not there, or not as long as the hub says."""
    sizes = _listing(repo, commit) or {}
    paths = {file: folder / file for file in files}
    return [
        file
        for file, path in paths.items()
        if not path.is_file() or sizes.get(file) not in (None, path.stat().st_size)
    ]


def _repository(repo: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def _snapshots(repo: str) -> Path:
    return _repository(repo) / "snapshots"


def _ref(repo: str, name: str) -> str | None:
    """The commit that a ref of the cache names."""
    try:
        commit = (_repository(repo) / "refs" / name).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _own_ref(revision: str | None) -> str:
    return f"{OWN_REFS}/{quote(revision or 'main', safe='')}"


def _kept(repo: str, revision: str | None) -> str | None:
    """The commit that is pinned, or was fetched."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    return _ref(repo, _own_ref(revision))


def _keep(repo: str, revision: str | None, commit: str) -> None:
    if _kept(repo, revision) == commit:
        return
    path = _repository(repo) / "refs" / _own_ref(revision)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(commit, encoding="utf-8")
        beside.replace(path)
    except OSError:
        pass  # a cache that others own may be read only; its refs then stand still, too


def _reason(error: Exception) -> str:
    """What a user can do about a failed download, in one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "it is gated; accept its terms on its page, and give a token by: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or one that needs a token; give one by: hf auth login"
    if isinstance(error, RevisionNotFoundError):
        return "the hub has no such revision (any more)"
    return " ".join(str(error).split())[:200]
