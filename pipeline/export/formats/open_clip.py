"""Image files and the tab-separated table that open_clip trains on."""

from __future__ import annotations

import csv
from typing import Any

from pipeline.export.formats.base import KEPT_FORMATS, Writer, said_of_images

# What pandas, which open_clip reads its table with, takes for "nothing here".
_PANDAS_NULLS = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"]
    + ["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)


class OpenClipWriter(Writer):
    """Image files and the tab-separated table that open_clip trains on."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._file = (self.scratch / "train.tsv").open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._file, delimiter="\t", lineterminator="\n")
        self._table.writerow(["filepath", "title", "id", "status", "missing", "score"])

    @property
    def tells(self) -> bool:
        return True

    def write(self, row: dict[str, Any], texts: list[str]) -> None:
        path = self.final / self.save_image(row)
        score = (row["completion"] or {}).get("score")
        told = [row["id"], row["status"], row["missing"] or "", "" if score is None else score]
        for text in texts:
            self._table.writerow([str(path), _one_line(text), *told])

    def close(self) -> None:
        self._file.close()

    def usage(self) -> str:
        return (
            f"`--train-data {self.final}/train.tsv --dataset-type csv`: the columns `filepath`,"
            " `title` and the separator are open_clip's defaults. Paths are absolute: export again"
            " to move it. A line for each caption, with white space made single."
            + said_of_images(KEPT_FORMATS)
        )


def _one_line(text: str) -> str:
    line = " ".join(text.replace("\0", " ").split())
    return line + " " if line in _PANDAS_NULLS else line
