"""Fetch the packages that the example world is drawn from, each at one pinned version.

Everything lands in a work folder that git ignores; what lies there already is used again.
"""

from __future__ import annotations

import logging
import subprocess
import tarfile
from pathlib import Path

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"

NPM_PACKAGES = {
    "noto": "emoji-datasource-google@16.0.0",
    "twemoji": "emoji-datasource-twitter@16.0.0",
    "fluent-3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "fluent-flat": "fluentui-emoji@1.3.0",
    "names": "emojibase-data@17.0.0",
}
DEBIAN_PACKAGE = "openclipart-svg"


def npm_package(key: str, work: Path = WORK) -> Path:
    """Give the unpacked folder of one npm package, fetching it where it is absent.

    Parameters
    ----------
    key : str
        A key of `NPM_PACKAGES`.
    work : Path
        Folder that keeps tarballs and what is unpacked from them.

    Returns
    -------
    Path
        The folder with the package's files.

    Raises
    ------
    subprocess.CalledProcessError
        When npm cannot fetch the package.
    """
    spec = NPM_PACKAGES[key]
    name, version = spec.rsplit("@", 1)
    tarball = work / "npm" / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    folder = work / "unpacked" / key
    if folder.is_dir():
        return folder / "package"
    if not tarball.is_file():
        logger.info("fetching %s", spec)
        tarball.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", spec], cwd=tarball.parent, check=True)
    beside = folder.with_name(folder.name + ".new")
    beside.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tarball) as archive:
        archive.extractall(beside, filter="data")
    beside.rename(folder)
    return folder / "package"


def openclipart(work: Path = WORK) -> Path:
    """Give the root of Openclipart's SVG files, from Debian's package.

    Returns
    -------
    Path
        Folder whose subfolders are Openclipart's categories.

    Raises
    ------
    subprocess.CalledProcessError
        When apt or dpkg fail; both are there on Debian and Ubuntu alone.
    """
    base = work / "openclipart"
    root = base / "unpacked" / "usr" / "share" / "openclipart" / "svg"
    if not root.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        if not list(base.glob(f"{DEBIAN_PACKAGE}_*.deb")):
            subprocess.run(["apt-get", "download", DEBIAN_PACKAGE], cwd=base, check=True)
        package = sorted(base.glob(f"{DEBIAN_PACKAGE}_*.deb"))[-1]
        subprocess.run(["dpkg", "-x", str(package), str(base / "unpacked")], check=True)
    return root
