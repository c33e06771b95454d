"""What has changed since a knowledge base was built, and whether it can simply follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kb.contents import OWN_COLUMNS, Origin
from kb.pairs import Pairs, read_pairs, string_column

_EMPTY = np.empty(0, dtype=bool)


@dataclass(frozen=True)
class Growth:
    """The difference between a knowledge base and the pairs at hand.

    A pair whose embeddings changed has gone and is new.

    Attributes
    ----------
    rebuild : str or None
        Why it has to be built anew; None where it may follow, and the rest holds.
    internal : Pairs or None
        New internal pairs.
    external : list of Pairs
        New external pairs.
    staying_known : bool [n]
        Rows of known.parquet that stay.
    staying_pairs : bool [m]
        Rows of pairs.arrow that stay.
    table : pyarrow.Table
        The staying pairs' columns as they are now: a renamed file is no new pair, but it has to
        be found.
    internal_changed, external_changed : int
        Pairs that came or went since the last fit.
    moved : bool
        Whether a column of a staying pair changed.
    """

    rebuild: str | None
    internal: Pairs | None = None
    external: list[Pairs] = field(default_factory=list)
    staying_known: np.ndarray = field(default_factory=lambda: _EMPTY)
    staying_pairs: np.ndarray = field(default_factory=lambda: _EMPTY)
    table: pa.Table | None = None
    internal_changed: int = 0
    external_changed: int = 0
    moved: bool = False

    @property
    def news(self) -> bool:
        """Whether pairs came or went."""
        return self.internal is not None or bool(self.external) or not self.staying_known.all()

    @property
    def empty(self) -> bool:
        """Nothing is new, nothing is gone, and nothing has changed."""
        return self.rebuild is None and not self.news and not self.moved


def compare(
    folder: Path,
    manifest: Mapping[str, Any],
    expected: Mapping[str, Any],
    internal: Pairs,
    external: Sequence[Pairs],
    refit_share: float,
    external_fitted: bool = False,
) -> Growth:
    """Compares a knowledge base with the pairs it should hold now.

    Parameters
    ----------
    folder, manifest : the knowledge base
    expected : mapping
        Entries of the manifest that must agree: settings, encoder and so on.
    internal, external : all pairs, known and new
    refit_share : float
        Share of the internal pairs that may come or go before everything is fitted anew.
    external_fitted : bool
        Whether the same holds of the external pairs, for the mapping may be fitted to them.
    """
    for name, value in expected.items():
        if manifest.get(name) != value:
            return Growth(f"{name} changed")
    sources = {s for p in external for s in pc.unique(p.table["source"]).to_pylist()}
    for words, names in (
        ("new", sources - set(manifest["counts"]["external_sources"])),
        ("gone", set(manifest["counts"]["external_sources"]) - sources),
    ):
        if names:
            return Growth(f"external source {min(names)!r} is {words}")
    known = pq.read_table(folder / "known.parquet")
    stays = np.zeros(len(known), dtype=bool)
    fresh: list[Pairs] = []
    for pairs, origin in [(internal, "internal"), *((p, "external") for p in external)]:
        rows, new = _match(pairs, origin, known)
        stays[rows] = True
        fresh.append(pairs if new.all() else pairs.select(np.flatnonzero(new)))
    gone = known.filter(pa.array(~stays))
    changed: dict[str, int] = {}
    for origin, new_pairs in (("internal", fresh[:1]), ("external", fresh[1:])):
        left = pc.sum(pc.equal(gone["origin"], origin)).as_py() or 0
        changed[origin] = manifest["counts"][f"{origin}_changed"] + sum(map(len, new_pairs)) + left
        fitted_on = manifest["counts"][f"{origin}_at_fit"]
        counts = origin == "internal" or external_fitted
        if counts and changed[origin] > refit_share * fitted_on:
            return Growth(
                f"{changed[origin]} {origin} pairs came or went since the last fit, "
                f"which had {fitted_on}"
            )
    held = read_pairs(folder / "pairs.arrow")
    kept = ~np.asarray(pc.is_in(_ids(held), value_set=_ids(gone).combine_chunks()))
    held = held.filter(pa.array(kept))
    table = _refreshed(held, [internal, *external])
    return Growth(
        None,
        fresh[0] if len(fresh[0]) else None,
        [pairs for pairs in fresh[1:] if len(pairs)],
        stays,
        kept,
        table,
        changed["internal"],
        changed["external"],
        not table.equals(held),
    )


def _match(pairs: Pairs, origin: Origin | str, known: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `known` that these pairs are, and which of the pairs are new, bool [n]."""
    if not len(known):
        return np.empty(0, np.int64), np.ones(len(pairs), dtype=bool)
    place = pc.index_in(string_column([pairs], "id"), value_set=_ids(known).combine_chunks())
    rows = np.asarray(pc.fill_null(place, 0), dtype=np.int64)
    same = np.asarray(pc.is_valid(place))
    for modality, digests in pairs.digests.items():
        same &= np.asarray(known[f"{modality}_digest"])[rows] == digests
    same &= np.asarray(pc.equal(known["origin"], origin))[rows]
    return rows[same], ~same


def _ids(table: pa.Table) -> pa.ChunkedArray:
    return table["id"].cast(pa.large_string())


def _refreshed(held: pa.Table, sides: Sequence[Pairs]) -> pa.Table:
    """The held rows with the columns that their pairs have now."""
    columns = [name for name in held.column_names if name not in OWN_COLUMNS]
    now = pa.concat_tables(
        [side.table.select([c for c in columns if c in side.table.column_names]) for side in sides],
        promote_options="permissive",
    )
    place = pc.index_in(_ids(held), value_set=_ids(now).combine_chunks())
    table = now.take(place.combine_chunks())
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), held.schema.field(name).type))
    for name in OWN_COLUMNS:
        table = table.append_column(name, held[name])
    return table.select(held.column_names).cast(held.schema)
