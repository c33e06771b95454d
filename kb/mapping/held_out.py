"""Predictions of pairs by mappings that did not see them, kept for what is measured by them later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kb.embeddings import MODALITIES, Modality


@dataclass(frozen=True)
class HeldOut:
    """Some of the pairs that a mapping was fitted on, as mappings without them predict them.

    What is predicted of a pair that the mapping was fitted on lies nearer to the truth than what
    will be predicted of others.

    Attributes
    ----------
    ids : sequence of n strings
    predictions : dict
        Per source modality unit rows [n, d of the other].
    """

    ids: Sequence[str]
    predictions: dict[Modality, np.ndarray]

    def save(self, path: Path) -> None:
        """Writes an Arrow file, predictions in half precision."""
        columns = {f"from_{m}": _fixed(rows) for m, rows in self.predictions.items()}
        table = pa.table({"id": pa.array(self.ids, pa.string()), **columns})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path) -> HeldOut | None:
        """Reads what `save` wrote; None where nothing was, for no contest was held."""
        if not path.exists():
            return None
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        rows: dict[Modality, np.ndarray] = {}
        for modality in MODALITIES:
            column = table[f"from_{modality}"].chunk(0)
            values = column.flatten().to_numpy().astype(np.float32)
            rows[modality] = values.reshape(len(table), -1)
        return cls(table["id"].to_pylist(), rows)


def _fixed(rows: np.ndarray) -> pa.Array:
    values = pa.array(np.ascontiguousarray(rows, dtype=np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
