"""Files of a knowledge base: written beside, swapped in whole, and checked by digest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
_BLOCK = 1024 * 1024


class DamagedKnowledgeBase(ValueError):
    """A file of the knowledge base is missing, truncated, or not what was written."""


def save_state(path: Path, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Write what a part has learned: `path`.safetensors, and `path`.json of what JSON holds."""
    from safetensors.numpy import save_file

    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(held, f"{path}.safetensors")
    Path(f"{path}.json").write_text(json.dumps(state, indent=1) + "\n")


def load_state(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save_state` wrote: the arrays, and the rest."""
    from safetensors.numpy import load_file

    return load_file(f"{path}.safetensors"), json.loads(Path(f"{path}.json").read_text())


@contextmanager
def replacing(folder: Path, owner: str = "") -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well.

    A block that fails leaves `folder` as it was. What an earlier, killed run left beside it is
    removed, or put back where it was killed between the two renames.

    Parameters
    ----------
    folder : path
    owner : str
        Two owners may write at once, each in a temporary folder of its own; the same one may not.

    Raises
    ------
    OSError
        Among other reasons, another owner put a folder in place at the same moment.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f"{folder.name}{owner and '.'}{owner}.building")
    retired = folder.with_name(folder.name + ".retired")
    recover(folder)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
        if folder.exists():
            os.rename(folder, retired)
        os.rename(building, folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        recover(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def recover(folder: Path) -> None:
    """Puts the old folder back where a swap was cut short between its two renames."""
    retired = folder.with_name(folder.name + ".retired")
    if retired.exists():
        if folder.exists():
            shutil.rmtree(retired)
        else:
            os.rename(retired, folder)


def sync_folder(folder: Path) -> None:
    """Makes a rename or a removal within a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits, read in blocks."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file under a folder, by relative path, but for the manifest."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "digest": file_digest(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def damaged_files(folder: Path, manifest: dict[str, Any], *, thorough: bool = True) -> list[str]:
    """Files that are missing, of another size, or (when thorough) of another digest."""
    damaged = []
    for name, written in manifest["files"].items():
        path = folder / name
        if (
            not path.is_file()
            or path.stat().st_size != written["bytes"]
            or (thorough and file_digest(path) != written["digest"])
        ):
            damaged.append(name)
    return damaged


def version_of(
    files: dict[str, dict[str, Any]], ids: Iterable[Sequence[str]], retrieval: Mapping[str, Any]
) -> str:
    """The version of a knowledge base: a digest of what can be retrieved and how.

    That is the pairs it holds (their ids, and their contents by the embeddings), the mapping, the
    rotations, and what retrieval was settled on. Indexes follow from the embeddings; a pair's
    other columns tell where its halves lie, which a renamed file changes and a retrieved pair does
    not show; and what the filter dropped is never retrieved: none of them counts.

    Parameters
    ----------
    files : as `digest_files` gives them
    ids : of the pairs held, in order, in blocks of any size
    retrieval : mode, k and alpha
    """
    counted = ("embeddings/", "mapping/", "alignment/")
    listing = {n: files[n]["digest"] for n in sorted(files) if n.startswith(counted)}
    digest = hashlib.blake2b(json.dumps([listing, dict(retrieval)]).encode(), digest_size=8)
    for block in ids:
        for identity in block:
            # Quoted, so that no two lists read alike.
            digest.update(json.dumps(identity).encode())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest and flushes it to disk."""
    part = folder / (MANIFEST + ".part")
    with part.open("w") as file:
        json.dump(manifest, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; DamagedKnowledgeBase where it is missing, unreadable or of another format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedKnowledgeBase(f"{path}: cannot be read ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise DamagedKnowledgeBase(f"{path}: not a manifest of format version {FORMAT_VERSION}")
    return manifest
