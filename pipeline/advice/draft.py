"""A first config for a dataset: looks at the data, and writes what it found with a few comments."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.advice.splits import mixed_splits
from pipeline.config.config import load_config, make_config
from pipeline.config.text import config_text
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.columns import NONE, ColumnSettings
from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.dataset.earlier import made_earlier
from pipeline.dataset.ids import DuplicateIds
from pipeline.dataset.misread import misread
from pipeline.dataset.overlooked import doubtful, overlooked, without_pairs
from pipeline.dataset.settings import INTERNAL
from pipeline.dataset.sources import Progress, quiet
from pipeline.job import Job
from pipeline.storage.errors import ConfigError, first_error
from pipeline.storage.files import FOLDER_NAME, write_whole

# Fewer pairs than this, and the mapping between image and text is a constant.
FEW_PAIRS = 32

MODELS: dict[str, dict[str, Any]] = {
    "encoder": {"kind": "open_clip", "model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
    "captioner": {"kind": "blip2", "model": "Salesforce/blip2-opt-2.7b"},
    "image_generator": {"kind": "sdxl", "model": "stabilityai/stable-diffusion-xl-base-1.0"},
}


@dataclass(frozen=True)
class Draft:
    """A config that was written, and what was found on the way.

    Attributes
    ----------
    path : Path
        The config.
    rows, files : int
    counts : dict of str to int
        Rows by what is missing: "complete", "text", "image", "both".
    reasons : dict of str to dict
        Per half, how often each reason of its absence was found.
    columns : dict of str to str
        The columns "id", "image" and "text"; "none" where there is none.
    external : dict of str to int
        Complete pairs of each external dataset.
    warnings : list of str
        What will keep a run from being of use.
    """

    path: Path
    rows: int
    files: int
    counts: dict[str, int]
    reasons: dict[str, dict[str, int]]
    columns: dict[str, str]
    external: dict[str, int]
    warnings: list[str]


def draft(
    dataset: str,
    path: Path,
    *,
    external: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    models: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Progress = quiet,
) -> Draft:
    """Look at a dataset and write a config that completes it.

    What was read is kept in the run's folder, so that the run need not read it again.

    Parameters
    ----------
    dataset
        Path or fsspec URL of the incomplete dataset, in any form that `Dataset` reads.
    path
        Where the config goes.
    external
        Paths or URLs of datasets of complete pairs, each perhaps as NAME=PATH.
    columns
        Columns of the dataset for "id", "image", "text", where they can't be found by name.
    format
        Form of the dataset, where it can't be told by the files' names.
    models
        Folders or hub ids for "encoder", "captioner" and "image_generator".
    force
        Replace what stands at `path`.
    progress
        Called with the name of a step, what is done of it, and the total (0: unknown).

    Raises
    ------
    ConfigError
        `path` stands already, or a setting is wrong.
    DatasetError
        A dataset can't be used as it is.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the config file")
    if path.exists() and not force:
        raise ConfigError(f"{path} stands already; --force replaces it")
    base = path.resolve().parent
    values: dict[str, Any] = {
        "name": name_of(path.name),
        "dataset": {"path": _relative(dataset, base)},
        "external": _externals(external, base),
    }
    if format:
        values["dataset"]["format"] = format
    if columns:
        values["dataset"]["columns"] = dict(columns)
    # Told in full before anything is read, so that the run finds what was read for it.
    for one in (values["dataset"], *values["external"]):
        _find(one, base)
    for section, standard in MODELS.items():
        asked = (models or {}).get(section)
        values[section] = standard if asked is None else _model(section, asked, base)
    job = Job(make_config(values, base), progress)
    warnings: list[str] = []
    try:
        catalog = job.catalog
    except DuplicateIds as error:
        if error.loses:
            raise
        values["dataset"]["on_duplicate"] = "first"
        warnings.append(f"{error.twice}: the first of them counts (on_duplicate: first)")
        job = Job(make_config(values, base), progress)
        catalog = job.catalog
    settled = _roles(catalog.dataset.found_again(ColumnSettings(**(columns or {}))))
    if settled != values["dataset"]["columns"]:
        # A half's column came after the rows that were looked at before.
        values["dataset"]["columns"] = settled
        job = Job(make_config(values, base), progress)
        catalog = job.catalog
    found = {
        name: each for name, each in job.sources.catalogs(job.progress).items() if name != INTERNAL
    }
    pairs = {name: len(catalog.complete()) for name, catalog in found.items()}
    warnings += _warnings(catalog, found)
    columns_found = dict(settled)
    for half in doubtful(catalog):
        # What is left out, and not "none", a run looks for and tells of again.
        if half not in (columns or {}):
            del values["dataset"]["columns"][half]
    text = config_text(values, catalog, found, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    load_config(path)
    return Draft(
        path=path,
        rows=len(catalog),
        files=len(catalog.dataset.files),
        counts=catalog.counts(),
        reasons=catalog.reasons(),
        columns=columns_found,
        external=pairs,
        warnings=warnings,
    )


def _warnings(catalog: Catalog, externals: Mapping[str, Catalog]) -> list[str]:
    counts = catalog.counts()
    found = []
    if not counts["complete"]:
        found.append(
            "no complete pair to learn from: a run needs rows with both an image and a text"
        )
    elif counts["complete"] < FEW_PAIRS:
        found.append(
            f"only {counts['complete']} complete pairs to learn from; {FEW_PAIRS} or more are of use"
        )
    if not counts["text"] + counts["image"]:
        found.append("no row lacks a half: a run has nothing to complete")
    if not catalog.dataset.has_id:
        found.append(
            "no column of ids: a row is known by what it holds, and is a new one when that changes"
        )
    found += [
        *mixed_splits(catalog),
        *overlooked(catalog),
        *misread(catalog.dataset),
        *made_earlier(catalog),
        *catalog.dataset.advice(),
    ]
    for name, external in externals.items():
        told = [*overlooked(external), *misread(external.dataset), *made_earlier(external)]
        found += [f"external {name}: {line}" for line in told]
        found += filter(None, [without_pairs(name, external)])
    return found


def name_of(path: str) -> str:
    """A name for the dataset at a path or URL: its last part that is no pattern, without suffixes.

    Examples
    --------
    >>> name_of("s3://bucket/my photos/*.parquet"), name_of("data/rows.csv")
    ('my-photos', 'rows')
    """
    parts = [p for p in path.split("/") if p and not set(p) & set("*?")]
    stem = re.sub(r"(\.[A-Za-z]\w*)+$", "", parts[-1] if parts else "")
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "run"


def _relative(path: str, base: Path) -> str:
    """A path that was given in this process's folder, as the config has it: relative to its own."""
    if "://" in path or path.startswith(("/", "~")):
        return path
    return os.path.relpath(path, base)


def _externals(given: Sequence[str], base: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not re.fullmatch(FOLDER_NAME, name):
            path = one
            name = name_of(path)
        found.append({"name": name, "path": _relative(path, base)})
    return found


def _model(section: str, asked: str, base: Path) -> dict[str, Any]:
    folder = Path(asked).expanduser()
    if not folder.is_dir():
        kind = MODELS[section]["kind"]
        return {"kind": kind, "model": asked}
    model = _relative(asked, base)
    model = model if model.startswith(("/", "~", ".")) else f"./{model}"
    return {"kind": _kind(section, folder), "model": model}


def _kind(section: str, folder: Path) -> str:
    """What reads the checkpoint in a folder, by its configuration."""
    if section == "encoder":
        return "open_clip" if (folder / "open_clip_config.json").is_file() else "transformers"
    if section == "image_generator":
        return "sdxl"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "blip2"
    return "blip2" if config.get("model_type") == "blip-2" else "vlm"


def _find(values: dict[str, Any], base: Path) -> None:
    """Name the form and the columns of a dataset in its settings."""
    given = {name: value for name, value in values.items() if name != "name"}
    try:
        settings = DatasetSettings(**given)
    except ValidationError as error:
        raise ConfigError(first_error(error, "dataset")) from None
    found = Dataset.open(settings, base)
    values["format"] = found.format
    values["columns"] = _roles(found.columns)


def _roles(columns: ColumnSettings) -> dict[str, str]:
    return {role: getattr(columns, role) or NONE for role in ("id", "image", "text")}
