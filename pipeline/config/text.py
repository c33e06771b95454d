"""A config as a person would write it: the settings that matter, with what was found in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset

COMMENTS = {
    "encoder": "embeds images and texts",
    "captioner": "writes missing texts",
    "image_generator": "draws missing images",
}


def config_text(
    values: Mapping[str, Any],
    catalog: Catalog,
    external: Mapping[str, Catalog],
    file_name: str,
) -> str:
    """A short commented config.

    Parameters
    ----------
    values
        The settings: `name`, `dataset` and each of `external` with `path`, `format` and `columns`,
        and the models by section.
    catalog
        Of the incomplete dataset.
    external
        Catalogs of the external datasets by name.
    file_name
        Of the config, for the commands that it shows.
    """
    reasons = catalog.reasons()
    lines = [
        f"# {_counted(catalog)}",
        *(f"#   without {half}: {_reasons(why)}" for half, why in reasons.items() if why),
        f"# What a run would do: rag4dmc inspect {_comment(file_name)}",
        f"name: {_scalar(values['name'])}",
        "",
        "dataset:",
        *_dataset(values["dataset"], catalog.dataset),
        "",
        *_external(values["external"], external),
        "",
        *(f"{name}: {_flow(values[name])}    # {said}" for name, said in COMMENTS.items()),
        "",
        "generation: {n: 4}    # candidates a row; the best is kept",
        "run: {seed: 0, shard_size: 256}",
    ]
    return "\n".join(lines) + "\n"


def _external(given: Sequence[Mapping[str, Any]], catalogs: Mapping[str, Catalog]) -> list[str]:
    if not given:
        return [
            "# external:    # public pairs to learn from; the more of the kind the better",
            "#   - {name: cc3m, path: data/cc3m, licence: CC-BY-4.0}",
        ]
    lines = [
        "# Public pairs to learn from; those that don't fit the dataset are filtered.",
        "external:",
    ]
    for one in given:
        catalog = catalogs[one["name"]]
        pairs = len(catalog.complete())
        lines.append(f"  - name: {_scalar(one['name'])}    # {pairs:,} complete pairs")
        lines += [f"  {line}" for line in _dataset(one, catalog.dataset)]
        if not {"licence", "license"} & set(catalog.dataset.extra_schema.names):
            lines.append("    # licence: of the pairs, for the dataset card")
    return lines


def _dataset(given: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """The lines of a dataset's section."""
    lines = [
        f"  path: {_scalar(given['path'])}",
        f"  format: {given['format']}",
        f"  columns: {_flow(given['columns'])}",
    ]
    extra = list(dataset.extra_schema.names)
    if extra:
        shown = ", ".join(extra[:5]) + (", …" if extra[5:] else "")
        lines[-1] += f"    # passing through: {_comment(shown)}"
    for half in ("image", "text"):
        if half not in given["columns"]:
            lines.append(
                f"  # no column of {half}s was found: name it in columns, or say {half}: none"
            )
    if "on_duplicate" in given:
        lines.append(f"  on_duplicate: {given['on_duplicate']}    # an id stands more than once")
    return lines


def _counted(catalog: Catalog) -> str:
    counts = catalog.counts()
    neither = f", {counts['both']:,} without either" if counts["both"] else ""
    return (
        f"{len(catalog):,} rows: {counts['complete']:,} complete, {counts['text']:,} without text,"
        f" {counts['image']:,} without image{neither}."
    )


def _reasons(why: Mapping[str, int]) -> str:
    shown = ", ".join(f"{_comment(reason)} ({count:,})" for reason, count in list(why.items())[:6])
    return shown + (", …" if len(why) > 6 else "")


def _comment(text: str) -> str:
    """Text from data, as it may stand in a comment of YAML."""
    return "".join(char if char.isprintable() else " " for char in text)


def _scalar(value: Any) -> str:
    return _flow([value])[1:-1]


def _flow(value: Any) -> str:
    return yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    ).strip()
