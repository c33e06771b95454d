"""Write the example world's Parquet files: `python -m examples.emoji.dataset`.

`target.parquet` holds every pair of the target domain, `incomplete.parquet` some of its rows with
one half hidden, `external.parquet` another style's pairs in other words, with noise. Only tests
and evaluation read `target.parquet` by the ids of the incomplete rows, and the columns `relevant`
and `kind`.
"""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from examples.emoji.captions import Concept, in_target, load_concepts
from examples.emoji.pictures import load_pictures
from examples.emoji.sources import HERE
from examples.scenes.clipart import load_clipart
from examples.scenes.dataset import write
from examples.scenes.things import share

logger = logging.getLogger(__name__)

INCOMPLETE = 400
LEFT_OUT = 0.3
CLIPART = 400
LICENCES = {
    "noto": ("Apache-2.0", "emoji-datasource-google@16.0.0"),
    "fluent-flat": ("MIT", "fluentui-emoji@1.3.0"),
    "clipart": ("public domain", "openclipart-svg 1:0.18+dfsg-19"),
}


def webp(picture: np.ndarray) -> bytes:
    """Encode a picture as lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", lossless=True, quality=60, method=4)
    return buffer.getvalue()


def other_words(concept: Concept) -> str:
    """Word a concept without its short name: another title, or keywords, as the hash decides."""
    keywords = sorted(concept.keywords, key=lambda word: share(f"{concept.id} {word}"))
    if concept.title != concept.name and share(f"{concept.id} title") < 0.5:
        return ", ".join([concept.title, *keywords[:2]])
    if not keywords:
        return concept.title
    count = 2 + int(3 * share(f"{concept.id} count"))
    return ", ".join(keywords[:count])


def target_rows() -> list[dict[str, Any]]:
    """Give every pair of the target domain; where two concepts share a name, the first."""
    concepts = load_concepts()
    names: set[str] = set()
    result = []
    for i, picture in zip(*load_pictures("noto"), strict=True):
        concept = concepts[i]
        if not in_target(concept) or concept.name in names:
            continue
        names.add(concept.name)
        image = {"bytes": webp(picture), "path": f"{concept.id}.webp"}
        result.append(
            {"id": concept.id, "image": image, "text": concept.name, "category": concept.category}
        )
    return result


def incomplete_rows(target: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose rows by hash: half stay complete, a quarter lose the text, a quarter the image."""
    chosen = sorted(target, key=lambda row: share(f"incomplete {row['id']}"))[:INCOMPLETE]
    result = []
    for place, row in enumerate(chosen):
        quarter = 4 * place // INCOMPLETE
        hidden = {2: {"text": None}, 3: {"image": None}}.get(quarter, {})
        result.append({**row, **hidden})
    return result


def external_rows() -> list[dict[str, Any]]:
    """Give the external base: the flat style with three in ten target concepts left out."""
    concepts = load_concepts()
    result = []
    for i, picture in zip(*load_pictures("fluent-flat"), strict=True):
        concept = concepts[i]
        symbol = concept.category in ("Flags", "Symbols")
        if not symbol and not in_target(concept):
            continue
        if not symbol and share(f"left out {concept.id}") < LEFT_OUT:
            continue
        image = {"bytes": webp(picture), "path": f"flat-{concept.id}.webp"}
        licence, source = LICENCES["fluent-flat"]
        result.append(
            {
                "id": f"flat-{concept.id}",
                "image": image,
                "text": other_words(concept),
                "category": concept.category,
                "kind": "symbol" if symbol else "picture",
                "relevant": not symbol,
                "licence": licence,
                "source": source,
            }
        )
    for name, title, picture in load_clipart(CLIPART):
        licence, source = LICENCES["clipart"]
        result.append(
            {
                "id": f"clipart-{share(name):.12f}"[:22],
                "image": {"bytes": webp(picture), "path": name},
                "text": title,
                "category": name.split("/")[0],
                "kind": "clipart",
                "relevant": False,
                "licence": licence,
                "source": source,
            }
        )
    return result


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    target = target_rows()
    category = {"category": pa.string()}
    marks = {"kind": pa.string(), "relevant": pa.bool_()}
    origin = {"licence": pa.string(), "source": pa.string()}
    write(options.out / "target.parquet", target, category)
    write(options.out / "incomplete.parquet", incomplete_rows(target), category)
    write(options.out / "external.parquet", external_rows(), {**category, **marks, **origin})


if __name__ == "__main__":
    main()
