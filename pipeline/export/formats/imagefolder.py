"""Image files and `metadata.jsonl`, as `datasets` reads them."""

from __future__ import annotations

from typing import Any

from pipeline.export.formats.base import (
    IN_SOURCE,
    KEPT_FORMATS,
    Writer,
    code,
    json_line,
    said_of_images,
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
        read = code(
            "from datasets import load_dataset\n\n"
            f'rows = load_dataset("imagefolder", data_dir="{self.final}")["train"]'
            + self.observed('rows.filter(lambda row: row["status"] == "observed")')
        )
        return read + said_of_images(KEPT_FORMATS) + self.said_of_values()


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
