"""The protocol: which pairs are tested on, which train, and which halves are hidden.

All of it follows from ids and a seed by hashing, or from a mask file, so that every variant, every
machine and every later run sees the same. Masks of a higher rate contain those of a lower one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kb.embeddings import MODALITIES, Modality, Rows, chunks
from pipeline.storage.errors import ConfigError

MASKED = ("text", "image", "none", "test")


def shuffled(ids: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The ids in an order that only seed, purpose and the ids themselves decide."""

    def key(row_id: str) -> tuple[bytes, str]:
        text = f"{purpose}\0{seed}\0{row_id}"
        return hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), row_id

    return sorted(ids, key=key)


def split(ids: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Test and training ids.

    Raises
    ------
    ConfigError
        Either would be empty.
    """
    order = shuffled(ids, seed, "test")
    count = round(share * len(order))
    if not 0 < count < len(order):
        raise ConfigError(
            f"evaluation.test_share: {share:g} of {len(order)} complete pairs leaves no pair to"
            f" {'test on' if count == 0 else 'train on'}"
        )
    return order[:count], order[count:]


def draw_mask(ids: Sequence[str], rate: float, missing: str, seed: int) -> dict[str, Modality]:
    """Which half of which row is hidden.

    Parameters
    ----------
    ids : training ids
    rate : float
        Share of them that lacks a half.
    missing : "text", "image" or "mixed"
        Mixed hides texts and images in turn.
    seed : int
    """
    chosen = shuffled(ids, seed, "mask")[: round(rate * len(ids))]
    halves: tuple[Modality, Modality] = ("text", "image")
    if missing != "mixed":
        halves = ("text", "text") if missing == "text" else ("image", "image")
    return {row_id: halves[number % 2] for number, row_id in enumerate(chosen)}


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
