"""The protocol: which pairs are tested on, which train, and which halves are hidden.

All of it follows from ids, a seed and what rows share by hashing, or from a mask file, so that every
variant, every machine and every later run sees the same. Masks of a higher rate contain those of a
lower one. Rows that share a picture or a text (`kb.groups`) stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kb.embeddings import MODALITIES, Modality, Rows, chunks
from kb.groups import COMMON
from pipeline.storage.errors import ConfigError

MASKED = ("text", "image", "none", "test")


def shuffled(ids: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The ids in an order that only seed, purpose and the ids themselves decide."""

    def key(row_id: str) -> tuple[bytes, str]:
        text = f"{purpose}\0{seed}\0{row_id}"
        return hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), row_id

    return sorted(ids, key=key)


def in_groups(
    ids: Iterable[str], seed: int, purpose: str, groups: Mapping[str, str]
) -> list[list[str]]:
    """The ids by group, in an order of groups that only seed, purpose and names decide.

    Groups of more than a fiftieth of all rows come last, where one of them would decide a share.

    Parameters
    ----------
    ids, seed, purpose
        As of `shuffled`.
    groups : mapping of id to the name of its group
        An id that is not named is a group of its own.
    """
    members: dict[str, list[str]] = {}
    for row_id in shuffled(ids, seed, purpose):
        members.setdefault(groups.get(row_id, row_id), []).append(row_id)
    ordered = [members[name] for name in shuffled(members, seed, purpose)]
    large = max(COMMON, sum(map(len, ordered)) // 50)
    return sorted(ordered, key=lambda group: len(group) > large)


def first(groups: Sequence[Sequence[str]], count: int) -> list[Sequence[str]]:
    """The first groups that have about so many rows together: as near as whole groups come."""
    taken, rows = [], 0
    for group in groups:
        if rows + len(group) / 2 >= count:
            break
        taken.append(group)
        rows += len(group)
    return taken


def flat(groups: Iterable[Sequence[str]]) -> list[str]:
    """The ids of groups, one after the other."""
    return [row_id for group in groups for row_id in group]


def split(
    ids: Sequence[str], share: float, seed: int, groups: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Test and training ids; a group is in one of them whole.

    Raises
    ------
    ConfigError
        Either would be empty.
    """
    order = in_groups(ids, seed, "test", groups or {})
    test = first(order, round(share * len(ids)))
    if not 0 < len(test) < len(order):
        raise ConfigError(
            f"evaluation.test_share: {share:g} of {len(ids)} complete pairs leaves no pair to"
            f" {'train on' if test else 'test on'}"
        )
    return flat(test), flat(order[len(test) :])


def draw_mask(
    ids: Sequence[str],
    rate: float,
    missing: str,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Modality]:
    """Which half of which row is hidden.

    Of rows that share a picture or a text all or none lack a half, and all of them the same:
    else what is hidden in one would be seen in another.

    Parameters
    ----------
    ids : training ids
    rate : float
        Share of them that lacks a half.
    missing : "text", "image" or "mixed"
        Mixed hides texts and images in turn.
    seed : int
    groups : mapping of id to the name of its group, optional
        An id that is not named is a group of its own.
    """
    chosen = first(in_groups(ids, seed, "mask", groups or {}), round(rate * len(ids)))
    counts: dict[Modality, int] = {
        half: 0 for half in ("text", "image") if missing in (half, "mixed")
    }
    hidden: dict[str, Modality] = {}
    for group in chosen:
        half = min(counts, key=counts.__getitem__)
        counts[half] += len(group)
        hidden |= dict.fromkeys(group, half)
    return hidden


def read_mask(path: Path) -> dict[str, str]:
    """A mask file: id to "text", "image", "none" or "test".

    Parameters
    ----------
    path
        CSV, JSONL or Parquet with columns `id` and `missing`; others are not looked at.

    Raises
    ------
    ConfigError
        It can't be read, lacks a column, holds another value, or an id twice.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        elif path.suffix in (".jsonl", ".json"):
            table = pa.json.read_json(path)
        else:
            strings = {"id": pa.string(), "missing": pa.string()}
            options = pa.csv.ConvertOptions(column_types=strings, null_values=[""])
            table = pa.csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"evaluation.mask: {path} can't be read: {reason}") from None
    for name in ("id", "missing"):
        if name not in table.column_names:
            raise ConfigError(f"evaluation.mask: {path} has no column {name!r}")
    mask: dict[str, str] = {}
    ids = table["id"].cast(pa.string()).to_pylist()
    for row, (row_id, value) in enumerate(zip(ids, table["missing"].to_pylist(), strict=True)):
        value = "none" if value is None else str(value)
        if row_id is None or value not in MASKED:
            raise ConfigError(
                f"evaluation.mask: {path} row {row}: missing must be one of"
                f" {', '.join(MASKED)}; got {value!r} for id {row_id!r}"
            )
        if row_id in mask:
            raise ConfigError(f"evaluation.mask: {path} row {row}: id {row_id!r} stands twice")
        mask[row_id] = value
    return mask


def apply_mask(
    ids: Collection[str], given: Mapping[str, str], path: str
) -> tuple[list[str], list[str], dict[str, Modality]]:
    """Test ids, training ids and hidden halves by a mask file.

    Pairs that it does not name train, complete.

    Raises
    ------
    ConfigError
        It names a row that is no complete pair of the dataset, or hides nothing.
    """
    unknown = [row_id for row_id in given if row_id not in ids]
    if unknown:
        raise ConfigError(
            f"evaluation.mask: {path} names {len(unknown)} rows that are no complete pairs of the"
            f" dataset, the first {unknown[0]!r}"
        )
    test = [row_id for row_id in ids if given.get(row_id) == "test"]
    train = [row_id for row_id in ids if given.get(row_id) != "test"]
    hidden = {row_id: half for row_id in train for half in MODALITIES if given.get(row_id) == half}
    if not hidden:
        raise ConfigError(f"evaluation.mask: {path} hides nothing")
    return test, train, hidden


def rows_that_tell(
    ids: Iterable[str],
    hidden: Mapping[str, Modality],
    halves: Mapping[str, Mapping[Modality, str]],
    groups: Mapping[str, str],
) -> set[str]:
    """Rows that show a half which a mask file hides in another row of their group.

    Parameters
    ----------
    ids : training ids
    hidden : id to hidden half
    halves : id to the digests of both halves
    groups : id to the name of its group
    """

    def half(row_id: str, modality: Modality) -> tuple[str, str]:
        return groups[row_id], halves[row_id][modality]

    unseen = {m: {half(i, m) for i, own in hidden.items() if own == m} for m in MODALITIES}
    return {
        row_id
        for row_id in ids
        for modality in MODALITIES
        if hidden.get(row_id) != modality and half(row_id, modality) in unseen[modality]
    }


def near_duplicates(rows: Rows, test: Rows, cosine: float) -> np.ndarray:
    """Which rows have a near-duplicate among the test images.

    Parameters
    ----------
    rows : unit image embeddings [n, d], read in chunks
    test : unit image embeddings [m, d]
    cosine : float

    Returns
    -------
    bool array [n]
    """
    held = np.concatenate(list(chunks(test)))
    found = [(block @ held.T).max(axis=1) >= cosine for block in chunks(rows)]
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)
