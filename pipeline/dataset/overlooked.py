"""What lies in a dataset's folder, or in its columns, and is not used: told, lest it is generated anew."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.columns import NONE, has_fields, may_hold, text_kind, type_in_words
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.elsewhere import HALVES
from pipeline.dataset.forms.archives import ZIP_SUFFIX
from pipeline.dataset.forms.called import is_called
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.reasons import EMPTY_FILE, NO_STRING, NOT_ALLOWED, OUTSIDE, TOO_LARGE
from pipeline.dataset.forms.unused import by_suffix, empty_files, may_hold_data, unused
from pipeline.dataset.moved import moved, paths_told
from pipeline.dataset.nested import paths_within
from pipeline.dataset.opening import empty_tables, table_names
from pipeline.dataset.pictured import pictured

# Why a picture has no bytes that a row names, and that is there.
_UNREAD = (EMPTY_FILE, TOO_LARGE, NOT_ALLOWED)
logger = logging.getLogger(__name__)

_COLUMNS = 8
# Things within files that are shown.
_FIRST = 2
# Characters of a type that are shown.
_TYPE = 60
_READ = {"text": "a column of strings or of lists of them", "image": "a column of bytes or paths"}


def overlooked(catalog: Catalog, in_use: bool = False) -> list[str]:
    """Lines on files and columns that may hold what rows lack.

    Where the dataset is `in_use`, columns that the settings leave out on purpose are not told of.

    Files are those of the dataset's folder (of a glob, what it matches) that the form does not read
    and that no row names. What only tells of data, a README or a list of checksums, is none of them.
    """
    empty = empty_tables(catalog.dataset.root)
    left = _unused(catalog.dataset, [*catalog.image_paths(), *paths_told(catalog, _UNREAD)])
    out = _leading_out(catalog, left)
    said = {*empty, *out}
    files = unused(name for name in left if name not in said)
    told = [*_empty(empty), *_links(out), *files]
    first = [*moved(catalog), *_stems(catalog, left), *_apart(catalog)]
    within = [*_within(catalog), *_described(catalog)]
    return [*first, *told, *within, *_columns(catalog, in_use)]


def _empty(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            f"{empty_files(names)}: nothing is read of {'it' if len(names) == 1 else 'them'};"
            " copy or write again what should hold rows"
        )


def _leading_out(catalog: Catalog, names: Sequence[str]) -> list[str]:
    """Of pictures that are not used, links to files beyond the dataset's folder."""
    if not any(reason.startswith(OUTSIDE) for reason in catalog.reasons()["image"]):
        return []
    return [n for n in names if is_image(n) and catalog.dataset.images.leads_out(n)]


def _stems(catalog: Catalog, left: Sequence[str]) -> list[str]:
    """What names pictures without their suffix, where no row has a picture otherwise."""
    packed = any(name.lower().endswith(ZIP_SUFFIX) for name in left)
    pictures = list(filter(is_image, left))
    if not (packed or pictures) or pc.any(catalog.has("image")).as_py():
        return []
    return pictured(catalog.dataset, pictures)


def _links(names: Sequence[str]) -> Iterator[str]:
    for line in by_suffix(names):
        yield f"links that lead out of the dataset's folder are not followed: {line}; copy what they lead to"


def _apart(catalog: Catalog) -> Iterator[str]:
    """Samples of tars that are called alike in different folders, one a picture and one a text."""
    if catalog.dataset.format != "webdataset" or not catalog.dataset.has_id:
        return
    names: dict[str, dict[str, str]] = {}
    for half in HALVES:
        lacking = catalog.table.filter(pc.equal(catalog.table["missing"], half))
        names[half] = {posixpath.basename(key): key for key in lacking["id"].to_pylist()}
    both = sorted(names["text"].keys() & names["image"].keys())
    if both:
        shown = f"{names['text'][both[0]]}, {names['image'][both[0]]}"
        yield (
            "samples of tars that are called alike in different folders, one with a picture alone and one"
            f" with a text alone: {len(both)} ({shown}); they are rows of their own: pack both halves of"
            " a row in one folder"
        )


def _within(catalog: Catalog) -> Iterator[str]:
    """What lies within files that are read."""
    for kind, some in catalog.left_over().items():
        shown = ", ".join(some.first[:_FIRST]) + (", …" if some.count > _FIRST else "")
        yield f"{kind}: {some.count} ({shown}), not used"


def _described(catalog: Catalog) -> Iterator[str]:
    """Captions in the files of pictures."""
    if rows := catalog.described():
        yield (
            f"pictures without a text whose own files tell what may be one, in EXIF, IPTC, XMP or the texts of"
            f" PNG: {rows}; that is not read: write it as a column of texts"
        )


def _unused(dataset: Dataset, named: Iterable[str]) -> list[str]:
    """The files of the dataset's folder that hold data by their names, and that are not read.

    Parameters
    ----------
    named
        Paths of the images that rows name.
    """
    used = set(getattr(dataset.source, "used", lambda: table_names(dataset.source))())
    left = [n for n in may_hold_data(dataset.root.names()) if n not in used]
    if not left:
        return []
    known, own = set(dataset.root.names()), dataset.images.root.path == dataset.root.path
    packed: dict[str, set[str]] = {}
    for path in named:
        place = path if path in known and own else dataset.images.find(path)
        if isinstance(place, tuple):
            packed.setdefault(place[0], set()).add(place[1])
            place = place[0]
        if place is not None and own:
            used.add(place)
    inside = [
        f"{name}/{member}"
        for name, members in packed.items()
        for member in may_hold_data(dataset.images.packed(name))
        if own and member not in members
    ]
    return [name for name in left if name not in used] + inside


def _columns(catalog: Catalog, in_use: bool) -> Iterator[str]:
    """Columns that may be the one that was not found, or hold what its rows lack."""
    yield from _beside_pixels(catalog.dataset)
    for half in HALVES:
        if _has(catalog, half):
            yield from _elsewhere(catalog, half)
            if half == "text":
                yield from _no_strings(catalog)
            continue
        if getattr(catalog.dataset.settings.columns, half) == NONE and in_use:
            continue
        found = [
            field
            for field in catalog.dataset.passed
            if text_kind(field) or may_hold(field.type, half) or is_called(half, field.name)
        ]
        told = [field.name for field in found if text_kind(field)]
        if told:
            yield (
                f"no column of {half}s was found by its name, and every row counts as without"
                f" {half}; is it one of {_shown(told)}? (columns.{half})"
            )
        others = [field for field in found if not text_kind(field)]
        if others:
            kinds = sorted({type_in_words(field)[:_TYPE] for field in others})
            names = [field.name for field in others]
            within = next((field.name for field in others if has_fields(field)), None)
            named = f", or {_to_name(catalog.dataset, within, half)}" if within else ""
            yield (
                f"every row counts as without {half}, which may lie in {_shown(names)}"
                f" ({', '.join(kinds)}); no {half} is read of that: make it {_READ[half]}{named}"
            )


def _to_name(dataset: Dataset, column: str, half: str) -> str:
    """What lets a field within a column be read, with the paths that there are."""
    first, *others = paths_within(dataset, column, half) or [f"{column}.FIELD"]
    besides = f"; there is {' and '.join(others)} too" if others else ""
    return f"name a field within it (columns.{half}: {first}{besides})"


def doubtful(catalog: Catalog) -> list[str]:
    """The halves that no column was found for, though one may hold them: nobody left them out."""
    return [
        half
        for half in HALVES
        if not _has(catalog, half)
        and any(text_kind(f) or may_hold(f.type, half) for f in catalog.dataset.passed)
    ]


def _elsewhere(catalog: Catalog, half: str) -> Iterator[str]:
    """Columns that hold a half at rows where its own column has none."""
    column = getattr(catalog.dataset.columns, half)
    for name, rows in catalog.elsewhere(half).most_common(_COLUMNS):
        yield (
            f"rows without {half} in {column!r} that have one in {name!r}: {rows}; that is not read:"
            f" write both as one column, or leave {name!r} out of columns.extra"
        )


def _no_strings(catalog: Catalog) -> Iterator[str]:
    """Captions in another shape than strings and lists of them."""
    name = catalog.dataset.columns.text
    if rows := catalog.reasons()["text"].get(NO_STRING):
        yield (
            f"rows whose {name!r} is neither a text nor a list of texts, such as texts by language or"
            f" lists within lists: {rows}; no text is read of them:"
            f" {_to_name(catalog.dataset, str(name), 'text')}, or write a string or a list of strings"
        )


def _beside_pixels(dataset: Dataset) -> Iterator[str]:
    """Fields of an image column that are neither its bytes nor its path."""
    name = dataset.columns.image
    kind = (
        dataset.source.schema().field(name).type if name in dataset.source.schema().names else None
    )
    if kind is not None and pa.types.is_struct(kind):
        others = [field.name for field in kind if field.name not in ("bytes", "path", "reason")]
        if others:
            yield (
                f"fields of {name!r} beside its bytes and its path are not kept: {_shown(others)};"
                " write them as columns"
            )


def _has(catalog: Catalog, half: str) -> bool:
    """Whether there is a column of a half; one that no row of JSON or of a tar had is none."""
    dataset = catalog.dataset
    column = getattr(dataset.columns, half)
    grows = getattr(dataset.source, "columns", None) is not None
    empty = grows and not pc.any(catalog.has(half)).as_py()
    return column is not None and not (
        half == "text" and empty and not dataset.learned().get(column)
    )


def _shown(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_COLUMNS])) + (", …" if names[_COLUMNS:] else "")


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
