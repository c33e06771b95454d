"""What has to be known of a source before its rows are read: tables, columns, rows to leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.dataset.columns import NONE, ColumnSettings, guess_columns, resolve_columns
from pipeline.dataset.forms.base import DatasetError, Left, Source, is_string
from pipeline.dataset.forms.kinds import field_of
from pipeline.dataset.forms.names import holds_rows, is_image
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import Columns, with_empty
from pipeline.dataset.forms.unused import empty_files
from pipeline.dataset.forms.within import Within
from pipeline.dataset.settings import DatasetSettings

_LOOKED_AT = 64
# There, beside what was found of a dataset, where rows name images by their paths.
_HAS_PATHS = "has_paths"


def guess_halves(asked: ColumnSettings, source: Source) -> ColumnSettings:
    """The settings of columns, with those that a form has for halves, or that only values tell.

    What a form reads pictures or captions into is their column whatever others are called. Of an
    image column that is known by its values alone all those of the first file's first rows have to
    end as an image's name does; addresses on the web are none.
    """
    schema = source.schema()
    own = {r: n for r, n in getattr(source, "halves", {}).items() if getattr(asked, r) is None}
    asked = asked.model_copy(update={r: n for r, n in own.items() if n in schema.names})
    if asked.image is not None or guess_columns(schema).image is not None:
        return asked
    strings = [f.name for f in schema if is_string(f.type) and f.name not in (asked.id, asked.text)]
    name = next(iter(file.name for file in source.files()), None)
    if name is None or not strings:
        return asked
    for _, batch in source.batches(name, strings):
        try:
            rows = batch.slice(0, _LOOKED_AT).to_pydict()
        except UnicodeDecodeError:  # which the reading will tell of
            return asked
        held = {column: [value for value in rows[column] if value] for column in strings}
        found = [column for column, values in held.items() if values and all(map(_is_name, values))]
        return asked.model_copy(update={"image": found[0]}) if found else asked
    return asked


def _is_name(value: str) -> bool:
    return is_image(value) and "://" not in value


def known_schema(source: Source, asked: ColumnSettings) -> pa.Schema:
    """The columns of a source, with those that are asked for and may come later in JSON."""
    schema = source.schema()
    if not schema.names or getattr(source, "columns", None) is None:
        return schema
    named = [asked.id, asked.image, asked.text, *(asked.extra or ())]
    late = [n for n in dict.fromkeys(named) if n not in (None, NONE) and n not in schema.names]
    return with_empty(schema, late) if late else schema


def check_columns(source: Source, asked: ColumnSettings, found: ColumnSettings) -> None:
    """Look at the columns of JSON once all rows were read.

    Raises
    ------
    DatasetError
        No row has a column that is asked for; or a file has a half in a column of another name than
        the others, where that would pass through and the half be generated anew.
    """
    grown: Columns | None = getattr(source, "columns", None)
    if grown is None:
        return
    resolve_columns(asked, with_empty(source.schema(), getattr(source, "expected", ())))
    files = {name: grown.of(name) for name in grown.files()}
    for role in ("image", "text"):
        held = getattr(found, role)
        if held is None or held in grown.always or getattr(asked, role) is not None:
            continue
        beside = {c for kinds in files.values() if held in kinds for c in kinds}
        for name, kinds in files.items():
            fields = [field_of(c, k) for c, k in kinds.items() if k and c not in beside]
            other = getattr(guess_columns(pa.schema(fields)), role)
            if held not in kinds and other is not None:
                raise DatasetError(
                    f"{name} has no column {held!r}, which holds the {role}s of other files,"
                    f" but {other!r}; give all files the same columns, or set columns.{role}"
                )


def with_paths(source: Source, asked: ColumnSettings) -> Source:
    """A source that has the columns within others too which are asked for by their paths."""
    named = [asked.id, asked.image, asked.text, *(asked.extra or ())]
    paths = [name for name in dict.fromkeys(named) if name and "." in name]
    if not paths:
        return source
    grown: Columns | None = getattr(source, "columns", None)
    if grown is None:
        return Within(source, paths)
    grown.within = paths
    return source


def pictures_of(source: Source, root: Root, settings: DatasetSettings, base: Path) -> Pictures:
    """What finds the images of a dataset: the source's own where that has an index of them already."""
    if settings.image_root:
        return Pictures(Root.of(settings.image_root, base), settings.image_prefix)
    own: Pictures | None = getattr(source, "pictures", None)
    return own or Pictures(root, settings.image_prefix)


def has_paths(folder: Path | None) -> bool:
    """Whether a scan has found rows that name images by their paths, which the first need not tell."""
    return folder is not None and (folder / _HAS_PATHS).exists()


def found_paths(folder: Path) -> None:
    """Have later scans know that rows name images by their paths, and look for those that arrive."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _HAS_PATHS).touch()


def check_tables(source: Source, root: Root, path: str, form: str) -> None:
    """Raise a `DatasetError` if a path holds no table of a form that has a byte."""
    if not table_names(source):
        empty = empty_tables(root)
        besides = f" but {empty_files(empty)}" if empty else ""
        raise DatasetError(f"path {path!r} holds no file of format {form}{besides}")


def empty_tables(root: Root) -> list[str]:
    """The tables and archives of a folder that have no byte."""
    return [name for name in root.names() if holds_rows(name) and root.is_empty(name)]


def excluded_ids(name: str | None, base: Path) -> frozenset[str]:
    """The ids in the file of rows to leave out."""
    if name is None:
        return frozenset()
    try:
        lines = (base / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"exclude {name!r} can't be read: {error}") from None
    return frozenset(line.strip() for line in lines if line.strip())


def without_rows(source: Source, path: str) -> DatasetError:
    """What is wrong with a dataset that has files and no row; tells what lies in them instead."""
    left: Callable[[str], Mapping[str, Left]] = getattr(source, "left", lambda name: {})
    held = [
        f"{kind}: {some.count} ({', '.join(some.first)})"
        for name in table_names(source)
        for kind, some in left(name).items()
        if some.count
    ]
    return DatasetError(f"path {path!r} has no rows" + "".join(f"; {one}" for one in held[:2]))


def table_names(source: Source) -> list[str]:
    names = getattr(source, "names", None)
    return names() if names else [file.name for file in source.files()]
