"""What has changed since a knowledge base was built, and whether it can simply grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kb.pairs import Pairs, content_digests, string_column


@dataclass(frozen=True)
class Growth:
    """The difference between a knowledge base and the pairs at hand.

    Attributes
    ----------
    rebuild : str or None
        Why it has to be built anew; None where new rows may simply join.
    internal : Pairs or None
        New internal pairs.
    external : list of Pairs
        New external pairs.
    """

    rebuild: str | None
    internal: Pairs | None = None
    external: list[Pairs] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing is new, and nothing has changed."""
        return self.rebuild is None and self.internal is None and not self.external


def compare(
    folder: Path,
    manifest: Mapping[str, Any],
    expected: Mapping[str, Any],
    internal: Pairs,
    external: Sequence[Pairs],
    refit_share: float,
) -> Growth:
    """Compares a knowledge base with the pairs it should hold now.

    Parameters
    ----------
    folder, manifest : the knowledge base
    expected : mapping
        Entries of the manifest that must agree: settings, encoder and so on.
    internal, external : all pairs, known and new
    refit_share : float
        Growth of the internal pairs since the last fit beyond which everything is fitted anew.
    """
    for name, value in expected.items():
        if manifest.get(name) != value:
            return Growth(f"{name} changed")
    known = pq.read_table(folder / "known.parquet")
    seen = 0
    news: list[Pairs] = []
    for pairs, origin in [(internal, "internal"), *((p, "external") for p in external)]:
        place = pc.index_in(
            string_column([pairs], "id").combine_chunks(), known["id"].combine_chunks()
        )
        held = np.asarray(pc.is_valid(place))
        rows = np.asarray(place.fill_null(0))
        same = (
            np.asarray(known["content"])[rows] == content_digests(pairs)
            if len(known)
            else np.zeros(len(pairs), bool)
        )
        same &= np.asarray(pc.equal(known["origin"], origin).combine_chunks())[rows]
        if (held & ~same).any():
            changed = int(np.flatnonzero(held & ~same)[0])
            return Growth(f"pair {pairs.table['id'][changed].as_py()!r} changed")
        seen += int(held.sum())
        fresh = np.flatnonzero(~held)
        news.append(pairs if len(fresh) == len(pairs) else pairs.select(fresh))
    if seen < len(known):
        return Growth(f"{len(known) - seen} pairs are gone")
    fitted_on = manifest["counts"]["internal_at_fit"]
    if len(internal) - fitted_on > refit_share * fitted_on:
        return Growth(f"internal pairs grew from {fitted_on} to {len(internal)} since the last fit")
    new_external = [pairs for pairs in news[1:] if len(pairs)]
    sources = set(manifest["counts"]["external_sources"])
    for pairs in new_external:
        unseen = set(pc.unique(pairs.table["source"].cast(pa.string())).to_pylist()) - sources
        if unseen:
            return Growth(f"external source {min(unseen)!r} is new")
    return Growth(None, news[0] if len(news[0]) else None, new_external)
