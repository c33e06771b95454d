"""Turns Karpathy's split files into a dataset that rag4dmc reads, and a mask file for evaluation.

    python -m examples.recipes.karpathy dataset_flickr30k.json flickr30k-images data/flickr30k

COCO, Flickr30K and RSICD are published with one JSON file in the same layout (Karpathy and Fei-Fei
2015): `images`, each with `filename`, `split` and `sentences` of which `raw` is the caption. Written
are `pairs.jsonl` (id, image, text as a list) and `mask.csv` (id, missing).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.evaluation.protocol.split import draw_mask, read_mask


def image_path(image: Mapping[str, Any]) -> str:
    """Path of an image under the images' folder; COCO's lie in a folder for each year."""
    return "/".join(part for part in (image.get("filepath"), image["filename"]) if part)


def convert(
    layout: Path,
    images: Path,
    output: Path,
    rate: float = 0.7,
    missing: str = "mixed",
    seed: int = 0,
    mask: Path | None = None,
) -> dict[str, int]:
    """Write `pairs.jsonl` and `mask.csv`.

    Parameters
    ----------
    layout : Path
        The JSON file.
    images : Path
        The folder of the images.
    output : Path
        A folder, made when needed.
    rate, missing, seed
        Of the mask: what is hidden of the training images. Images of split `test` are tested on,
        those of `val` left out; `restval`, COCO's further training images, trains.
    mask : Path, optional
        A published mask in place of one that is drawn, as `evaluation.mask` describes it. Its
        lines for images that are not written are left out; images that it does not name are
        tested on or train complete, as their split says.

    Returns
    -------
    dict of str to int
        "pairs" written, images "absent", lines of `mask` that are "left out", and by what the mask
        says of the pairs "text", "image", "none" and "test".

    Raises
    ------
    ValueError
        The file has another layout, no image is there, or `mask` can't be read or names none.
    """
    try:
        listed = json.loads(layout.read_text(encoding="utf-8"))["images"]
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{layout}: no JSON of Karpathy's layout (a list `images`)") from None
    output.mkdir(parents=True, exist_ok=True)
    splits: dict[str, str] = {}
    absent = 0
    with (output / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for image in listed:
            path = images / image_path(image)
            if image["split"] == "val":
                continue
            if not path.is_file():
                absent += 1
                continue
            splits[image["filename"]] = image["split"]
            row = {
                "id": image["filename"],
                "image": str(path.resolve().relative_to(images.resolve())),
                "text": [sentence["raw"].strip() for sentence in image["sentences"]],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not splits:
        raise ValueError(f"{images}: none of the {absent} listed images is here")
    counts = {"pairs": len(splits), "absent": absent}
    said: Mapping[str, str]
    if mask is None:
        trained = [row_id for row_id, split in splits.items() if split != "test"]
        said = draw_mask(trained, rate, missing, seed)
    else:
        given = read_mask(mask)
        said = {row_id: value for row_id, value in given.items() if row_id in splits}
        counts["left out"] = len(given) - len(said)
        if not said:
            raise ValueError(f"{mask}: names none of the {len(splits)} images that are here")
    with (output / "mask.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "missing"])
        for row_id, split in splits.items():
            value = said.get(row_id, "test" if split == "test" else "none")
            counts[value] = counts.get(value, 0) + 1
            writer.writerow([row_id, value])
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layout", type=Path, help="dataset_coco.json and the like")
    parser.add_argument("images", type=Path, help="folder of the images")
    parser.add_argument("output", type=Path, help="folder for pairs.jsonl and mask.csv")
    parser.add_argument("--rate", type=float, default=0.7, help="missing rate")
    parser.add_argument("--missing", choices=("mixed", "text", "image"), default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mask", type=Path, help="a published mask (id, missing) to go by instead")
    options = parser.parse_args()
    try:
        counts = convert(**vars(options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"karpathy: {error}") from None
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
