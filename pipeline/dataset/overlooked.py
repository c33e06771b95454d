"""What lies in a dataset's folder, or in its columns, and is not used: told, lest it is generated anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.columns import text_kind
from pipeline.dataset.forms.unused import unused

_COLUMNS = 8


def overlooked(catalog: Catalog, in_use: bool = False) -> list[str]:
    """Lines on files and columns that may hold what rows lack.

    Where the dataset is `in_use`, columns that the settings leave out on purpose are not told of.

    Files are those of the dataset's folder (of a glob, what it matches) that the form does not read
    and that no row names. What only tells of data, a README or a list of checksums, is none of them.
    """
    return unused(catalog.dataset.unused(catalog.image_paths())) + list(_columns(catalog, in_use))


def _columns(catalog: Catalog, in_use: bool) -> Iterator[str]:
    """Columns that may be the one that was not found."""
    columns, extra = catalog.dataset.columns, catalog.dataset.extra_schema
    for half in ("text", "image"):
        asked = getattr(catalog.dataset.settings.columns, half)
        if getattr(columns, half) is None and (asked is None or not in_use):
            told = [field.name for field in extra if text_kind(field)]
            if told:
                shown = ", ".join(map(repr, told[:_COLUMNS])) + (", …" if told[_COLUMNS:] else "")
                yield (
                    f"no column of {half}s was found by its name, and every row counts as without"
                    f" {half}; is it one of {shown}? (columns.{half})"
                )


def as_warnings(lines: Iterable[str], rows: int) -> list[str]:
    """What a run says that generates for so many rows while something is overlooked."""
    told = "; ".join(lines)
    if not told:
        return []
    return [
        f"{rows} rows get a generated half, and what they lack may lie in what is not used: {told}"
    ]


def without_pairs(name: str, catalog: Catalog) -> str | None:
    """Why an external dataset has no complete pair, in a line; None where it has one."""
    if len(catalog.complete()):
        return None
    told = [
        f"{half}: {reason} ({count})"
        for half, reasons in catalog.reasons().items()
        for reason, count in list(reasons.items())[:3]
    ]
    return f"external {name}: none of its {len(catalog)} rows is a complete pair: {', '.join(told)}"
