"""What lies in a dataset's folder, or in its columns, and is not used: told, lest it is generated anew."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.columns import text_kind
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.names import is_about
from pipeline.dataset.forms.unused import unused
from pipeline.dataset.opening import table_names

logger = logging.getLogger(__name__)

_COLUMNS = 8


def overlooked(catalog: Catalog, in_use: bool = False) -> list[str]:
    """Lines on files and columns that may hold what rows lack.

    Where the dataset is `in_use`, columns that the settings leave out on purpose are not told of.

    Files are those of the dataset's folder (of a glob, what it matches) that the form does not read
    and that no row names. What only tells of data, a README or a list of checksums, is none of them.
    """
    return unused(_unused(catalog.dataset, catalog.image_paths())) + list(_columns(catalog, in_use))


def _unused(dataset: Dataset, named: Iterable[str]) -> list[str]:
    """The files of the dataset's folder that hold data by their names, and that are not read.

    Parameters
    ----------
    named
        Paths of the images that rows name.
    """
    used = set(getattr(dataset.source, "used", lambda: table_names(dataset.source))())
    left = [n for n in dataset.root.names() if n not in used and not is_about(n)]
    if not left:
        return []
    known, own = set(dataset.root.names()), dataset.images.root.path == dataset.root.path
    for path in named:
        place = path if path in known and own else dataset.images.find(path)
        if isinstance(place, tuple):
            place = place[0]
        if place is not None and own:
            used.add(place)
    return [name for name in left if name not in used]


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


def warn_of_run(catalog: Catalog, pending: Mapping[str, int], made: Collection[str]) -> list[str]:
    """What a run says, also in its log, before it generates halves while something is overlooked.

    Parameters
    ----------
    catalog
    pending
        Rows to do by missing half.
    made
        The halves that there is a generator for.
    """
    rows = sum(pending.get(half, 0) for half in made)
    told = overlooked(catalog, in_use=True) if rows else []
    if not told:
        return []
    warning = (
        f"{rows} rows get a generated half, and what they lack may lie in what is not used:"
        f" {'; '.join(told)}"
    )
    logger.warning("%s", warning)
    return [warning]


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
