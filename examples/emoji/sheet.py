"""Draw the contact sheet of random rows: `python -m examples.emoji.sheet`.

A row shows the text, the real picture, the one generated without grounding, the retrieved
example, and the one generated from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from examples.emoji.measure import Encoder, paint, read_pairs, retrieve
from examples.emoji.sources import HERE

ROWS = 48
ACROSS = 3


def draw_sheet(checkpoints: Path, rows: int, guidance: float, seed: int) -> Image.Image:
    """Draw the sheet of `rows` random rows of the target, `ACROSS` rows side by side."""
    chosen, base = read_pairs("target", rows, seed), read_pairs("external", 10_000)
    texts = [row["text"] for row in chosen]
    examples = retrieve(Encoder(checkpoints / "encoder"), chosen, base, "text")
    columns = [
        [row["picture"] for row in chosen],
        paint(checkpoints, texts, None, guidance),
        [row["picture"] for row in examples],
        paint(checkpoints, texts, [row["picture"] for row in examples], guidance),
    ]
    label, cell, high = 120, 68, 68
    wide = label + cell * len(columns) + 12
    deep = -(-rows // ACROSS)
    sheet = Image.new("RGB", (wide * ACROSS, high * deep + 18), "white")
    pen = ImageDraw.Draw(sheet)
    heads = ("real", "ungrounded", "example", "grounded")
    for block in range(ACROSS):
        for k, head in enumerate(heads):
            pen.text((block * wide + label + k * cell, 2), head, fill="black")
    for i, text in enumerate(texts):
        left, top = (i // deep) * wide, 18 + (i % deep) * high
        lines = [""]
        for word in text.split():
            fits = len(lines[-1]) + len(word) < 19
            lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
        pen.multiline_text((left + 4, top + 16), "\n".join(lines), fill="black", spacing=1)
        for k, column in enumerate(columns):
            sheet.paste(column[i], (left + label + k * cell, top))
    return sheet


def main() -> None:
    """Write the sheet as WebP."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "sheet.webp")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sheet = draw_sheet(options.checkpoints, options.rows, options.guidance, options.seed)
    sheet.save(options.out, "WEBP", quality=90, method=4)


if __name__ == "__main__":
    main()
