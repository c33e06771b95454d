"""Makes the recipe's two targets, their external bases and the generators' share of the photographs.

    python -m examples.recipes.gap.worlds DATA data/gap

DATA holds `rsicd/train.parquet`, `rsicd/test.parquet` and `flickr8k/all.parquet`, each with the columns
`id`, `image` {bytes, path} and `captions`, a list. What is written, all of it decided by ids and a seed:

| file | what | texts |
| --- | --- | --- |
| `photographs/learned.parquet` | the half that generators learn from | all captions |
| `photographs/target.parquet` | of the other half three quarters, the general target | all captions |
| `photographs/relevant.parquet` | the last quarter of it, held back as an external base | the last |
| `photographs/others.parquet` | the whole other half, external noise for RSICD | the last |
| `rsicd/target.parquet` | the remote-sensing target with the published test split | all captions |
| `rsicd/mask.csv` | its `id,missing`, for that test split | |
| `rsicd/relevant.parquet` | pairs held back from it as an external base | the last |
| `rsicd/others.parquet` | its published training split, noise for photographs | the last |
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.evaluation.protocol.split import draw_mask, shuffled

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FIELDS = [("id", pa.string()), ("image", IMAGE)]
LISTED = pa.schema([*FIELDS, ("text", pa.list_(pa.string()))])
SINGLE = pa.schema([*FIELDS, ("text", pa.string()), ("licence", pa.string())])
# A row is looked up by reading its group.
ROW_GROUP = 256
# Of RSICD's 8,734 training pairs so many are held back as an external base.
HELD_BACK = 2500
# And of the photographs that no generator learns from, this share.
SHARE_HELD_BACK = 0.25


def read(path: Path) -> dict[str, dict]:
    """Pairs of a Parquet file by id.

    Raises
    ------
    ValueError
        A column is not there, or an id stands twice.
    """
    table = pq.read_table(path)
    if lacking := [name for name in ("id", "image", "captions") if name not in table.column_names]:
        raise ValueError(f"{path}: no column {lacking[0]!r} among {', '.join(table.column_names)}")
    pairs = {row["id"]: row for row in table.select(["id", "image", "captions"]).to_pylist()}
    if len(pairs) < len(table):
        raise ValueError(f"{path}: {len(table)} rows have only {len(pairs)} different ids")
    return pairs


def write_target(path: Path, pairs: Sequence[dict]) -> None:
    """Pairs with all their captions."""
    rows = [{"id": p["id"], "image": p["image"], "text": p["captions"]} for p in pairs]
    _write(path, rows, LISTED)


def write_external(path: Path, pairs: Sequence[dict], licence: str) -> None:
    """Pairs with one caption each, the last, which says least of the others."""
    rows = [
        {"id": p["id"], "image": p["image"], "text": p["captions"][-1], "licence": licence}
        for p in pairs
    ]
    _write(path, rows, SINGLE)


def _write(path: Path, rows: list[dict], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=ROW_GROUP)


def make(
    data: Path,
    output: Path,
    rate: float = 0.7,
    missing: str = "text",
    seed: int = 0,
    held_back: int = HELD_BACK,
) -> dict[str, int]:
    """Write both worlds.

    Parameters
    ----------
    data, output : Path
        As in the module's docstring.
    rate, missing, seed
        Of `rsicd/mask.csv`, as `evaluation.rates` and `evaluation.missing` have it. The halves and
        what is held back follow from ids alone, lest captioners of several seeds are needed.
    held_back : int
        Pairs of RSICD's training split that become the external base.

    Returns
    -------
    dict of str to int
        Pairs by file, and what the mask says of how many.

    Raises
    ------
    ValueError
        A file has other columns or too few pairs.
    """
    train, test = read(data / "rsicd" / "train.parquet"), read(data / "rsicd" / "test.parquet")
    photographs = read(data / "flickr8k" / "all.parquet")
    if both := sorted(train.keys() & test.keys()):
        raise ValueError(f"rsicd: id {both[0]!r} stands in both splits")
    if not 0 < held_back < len(train):
        raise ValueError(f"held_back must lie between 0 and {len(train)}; got {held_back}")
    order = shuffled(photographs, 0, "gap photographs")
    learned, others = order[: len(order) // 2], order[len(order) // 2 :]
    relevant = others[: round(SHARE_HELD_BACK * len(others))]
    targeted = others[len(relevant) :]
    outdoors = shuffled(train, 0, "gap rsicd")
    held, kept = outdoors[:held_back], outdoors[held_back:]

    folder = output / "photographs"
    write_target(folder / "learned.parquet", [photographs[i] for i in learned])
    write_target(folder / "target.parquet", [photographs[i] for i in targeted])
    write_external(folder / "relevant.parquet", [photographs[i] for i in relevant], "Flickr8k")
    write_external(folder / "others.parquet", [photographs[i] for i in others], "Flickr8k")
    folder = output / "rsicd"
    write_target(folder / "target.parquet", [train[i] for i in kept] + list(test.values()))
    write_external(folder / "relevant.parquet", [train[i] for i in held], "RSICD")
    write_external(folder / "others.parquet", list(train.values()), "RSICD")
    hidden = draw_mask(kept, rate, missing, seed)
    said = {i: str(hidden.get(i, "none")) for i in kept} | dict.fromkeys(test, "test")
    with (folder / "mask.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "missing"])
        writer.writerows(said.items())
    return {
        "learned": len(learned),
        "photographs": len(targeted),
        "photographs held back": len(relevant),
        "rsicd": len(kept),
        "rsicd held back": len(held),
        "tested": len(test),
        "masked": len(hidden),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with rsicd/ and flickr8k/")
    parser.add_argument("output", type=Path, help="folder to write to, such as data/gap")
    parser.add_argument("--rate", type=float, default=0.7, help="missing rate of the mask")
    parser.add_argument("--missing", choices=("mixed", "text", "image"), default="text")
    parser.add_argument("--seed", type=int, default=0, help="of the mask")
    parser.add_argument("--held-back", type=int, default=HELD_BACK, help="RSICD pairs held back")
    options = parser.parse_args()
    try:
        counts = make(**vars(options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"worlds: {error}") from None
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
