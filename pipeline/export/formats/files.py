"""Layouts of image files with one table beside them: imagefolder, LLaVA, open_clip."""

from __future__ import annotations

import csv
import hashlib
from typing import Any

from pipeline.export.formats.base import IN_SOURCE, Writer, code, json_line

# What pandas, which open_clip reads its table with, takes for "nothing here".
_PANDAS_NULLS = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"]
    + ["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)


class ImageFolderWriter(Writer):
    """Image files and `metadata.jsonl`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._file = (self.scratch / "metadata.jsonl").open("w", encoding="utf-8")

    def reserved(self, name: str) -> bool:
        return super().reserved(name) or _opened(name)

    def write(self, row: dict[str, Any], texts: list[str]) -> None:
        record = _unopened(self.record(row, texts))
        record = {"file_name": self.save_image(row), **record}
        self._file.write(json_line(record) + "\n")

    def close(self) -> None:
        self._file.close()

    def usage(self) -> str:
        return code(
            "from datasets import load_dataset\n\n"
            f'rows = load_dataset("imagefolder", data_dir="{self.final}")["train"]'
            + self.observed('rows.filter(lambda row: row["status"] == "observed")')
        )


class LlavaWriter(Writer):
    """Image files and the list of conversations that LLaVA is fine-tuned on."""

    own = Writer.own | {"image", "conversations"}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._file = (self.scratch / "llava.json").open("w", encoding="utf-8")
        self._separator = "[\n"

    def write(self, row: dict[str, Any], texts: list[str]) -> None:
        image = self.save_image(row)
        record = self.record(row, texts)
        told = {name: record[name] for name in record if name not in ("id", "text", "texts")}
        for number, text in enumerate(texts):
            prompt = _choose(self.settings.prompts, f"{row['id']}#{number}")
            # The trainer takes every "<image>" for a place to put the picture in.
            answer = text.replace("<image>", "[image]")
            entry = {
                "id": row["id"] if number == 0 else f"{row['id']}#{number}",
                "image": image,
                "conversations": [
                    {"from": "human", "value": f"<image>\n{prompt}"},
                    {"from": "gpt", "value": answer},
                ],
                **told,
            }
            line = json_line(entry)
            self._file.write(self._separator + line)
            self._separator = ",\n"

    def close(self) -> None:
        self._file.write("\n]\n" if self.rows else "[]\n")
        self._file.close()

    def usage(self) -> str:
        return (
            f"`--data_path {self.final}/llava.json --image_folder {self.final}`: a list of"
            " conversations of one question and the caption, an entry for each caption. `<image>`"
            " within a caption became `[image]`."
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
        )


def _opened(key: str) -> bool:
    """Whether `datasets` takes what stands under a key of the metadata for a file to open."""
    return f"_{key}".endswith(("_file_name", "_file_names"))


def _unopened(value: Any) -> Any:
    """Rename what would be opened, within structs too."""
    if isinstance(value, list):
        return [_unopened(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        f"{key}{IN_SOURCE}" if _opened(key) else key: _unopened(item) for key, item in value.items()
    }


def _choose(prompts: list[str], row: str) -> str:
    number = int.from_bytes(hashlib.blake2b(row.encode(), digest_size=8).digest(), "little")
    return prompts[number % len(prompts)]


def _one_line(text: str) -> str:
    line = " ".join(text.replace("\0", " ").split())
    return line + " " if line in _PANDAS_NULLS else line
