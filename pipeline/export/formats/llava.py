"""Image files and the JSON of conversations that LLaVA is fine-tuned on."""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.export.formats.base import KEPT_FORMATS, Writer, json_line, said_of_images


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
            + said_of_images(KEPT_FORMATS)
            + self.said_of_values()
        )


def _choose(prompts: list[str], row: str) -> str:
    number = int.from_bytes(hashlib.blake2b(row.encode(), digest_size=8).digest(), "little")
    return prompts[number % len(prompts)]
