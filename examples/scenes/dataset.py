"""Write the example world's Parquet files: `python -m examples.scenes.dataset`.

`target.parquet` holds every pair of the target domain, `incomplete.parquet` some of its rows with
one half hidden, `external.parquet` another style's pairs in other words, half of them noise. Only
tests and evaluation read `target.parquet` by the ids of the incomplete rows, and the columns
`ground`, `things`, `kind` and `relevant`.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.scenes.clipart import load_clipart, on_white
from examples.scenes.grammar import PICTURE_LIST, SHIPS_LOG, Dialect
from examples.scenes.names import load_concepts
from examples.scenes.scenes import Composer, Scene
from examples.scenes.sources import HERE, WORK
from examples.scenes.sprites import read_drawing
from examples.scenes.things import load_sprites, share, target_things

logger = logging.getLogger(__name__)

TARGET, INCOMPLETE, EXTERNAL, CLIPART = 2000, 400, 600, 400
SYMBOLS = 260
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LICENCES = {
    "noto": ("Apache-2.0", "emoji-datasource-google@16.0.0"),
    "fluent-flat": ("MIT", "fluentui-emoji@1.3.0"),
    "clipart": ("public domain", "openclipart-svg 1:0.18+dfsg-19"),
}


def webp(picture: np.ndarray) -> bytes:
    """Encode a picture as WebP of a quality at which no eye sees a loss."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=92, method=6)
    return buffer.getvalue()


def write(path: Path, rows: list[dict[str, Any]], extra: dict[str, pa.DataType]) -> None:
    """Write rows in an order that their ids decide, with the metadata that `datasets` reads."""
    rows = sorted(rows, key=lambda row: share(f"order {row['id']}"))
    fields = {"id": pa.string(), "image": IMAGE, "text": pa.string(), **extra}
    kinds = {pa.string(): "string", pa.bool_(): "bool"}
    features = {
        name: {"_type": "Image"} if name == "image" else {"dtype": kinds[kind], "_type": "Value"}
        for name, kind in fields.items()
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(list(fields.items()), metadata=metadata)
    table = pa.Table.from_pylist(rows, schema=schema)
    # The pictures are compressed already.
    pq.write_table(table, path, row_group_size=100, compression="zstd")
    logger.info("%s: %d rows, %.2f MB", path.name, len(rows), path.stat().st_size / 1e6)


def facts(scene: Scene) -> dict[str, str]:
    """Give what a scene holds, by plain names, for measurements."""
    things = ", ".join(group.thing.name for group in scene.groups)
    return {"ground": scene.ground, "things": things}


def scene_rows(
    style: str, dialect: Dialect, count: int, prefix: str, seed: int, work: Path = WORK
) -> list[dict[str, Any]]:
    """Give scenes of all the target's things in one style, told in one dialect; no text twice."""
    composer = Composer(load_sprites(target_things(), style, work))
    rng = np.random.default_rng(seed)
    told: set[str] = set()
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        scene = composer.plan(rng)
        picture, _ = composer.draw(scene, rng)
        text = dialect.tell(scene)
        if text in told:
            continue
        told.add(text)
        name = f"{prefix}{len(rows):04d}"
        image = {"bytes": webp(picture), "path": f"{name}.webp"}
        rows.append({"id": name, "image": image, "text": text, **facts(scene)})
    return rows


def incomplete_rows(target: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose rows by hash: half stay complete, a quarter lose the text, a quarter the image.

    What a scene holds is left out: it would tell the hidden half.
    """
    chosen = sorted(target, key=lambda row: share(f"incomplete {row['id']}"))[:INCOMPLETE]
    result = []
    for place, row in enumerate(chosen):
        quarter = 4 * place // INCOMPLETE
        hidden = {2: {"text": None}, 3: {"image": None}}.get(quarter, {})
        result.append({**{key: row[key] for key in ("id", "image", "text")}, **hidden})
    return result


def noise_rows(work: Path = WORK) -> list[dict[str, Any]]:
    """Give pairs that have nothing of the target: flags, symbols, and clip art of maps and logos."""
    rows = []
    symbols = [c for c in load_concepts(work) if c.category in ("Flags", "Symbols")]
    for concept in sorted(symbols, key=lambda c: share(f"noise {c.id}")):
        drawing = read_drawing(concept, "fluent-flat", work)
        if drawing is not None:
            rows.append((f"symbol-{concept.id}", concept.name, on_white(drawing), "fluent-flat"))
    rows = rows[:SYMBOLS]
    for name, title, picture in load_clipart(CLIPART, work):
        rows.append((f"clipart-{share(name):.12f}"[:22], title, picture, "clipart"))
    result = []
    for name, text, picture, source in rows:
        licence, package = LICENCES[source]
        result.append(
            {
                "id": name,
                "image": {"bytes": webp(picture), "path": f"{name}.webp"},
                "text": text,
                "ground": "",
                "things": "",
                "kind": "symbol" if source == "fluent-flat" else "clipart",
                "relevant": False,
                "licence": licence,
                "source": package,
            }
        )
    return result


def external_rows(work: Path = WORK) -> list[dict[str, Any]]:
    """Give the external base: scenes in the flat style, and as many pairs of noise."""
    licence, source = LICENCES["fluent-flat"]
    origin = {"kind": "scene", "relevant": True, "licence": licence, "source": source}
    rows = scene_rows("fluent-flat", PICTURE_LIST, EXTERNAL, "flat-", 12, work)
    return [{**row, **origin} for row in rows] + noise_rows(work)


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--work", type=Path, default=WORK, help="where packages are kept")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    target = scene_rows("noto", SHIPS_LOG, TARGET, "log-", 11, options.work)
    told = {"ground": pa.string(), "things": pa.string()}
    marks = {"kind": pa.string(), "relevant": pa.bool_()}
    origin = {"licence": pa.string(), "source": pa.string()}
    write(options.out / "target.parquet", target, told)
    write(options.out / "incomplete.parquet", incomplete_rows(target), {})
    write(
        options.out / "external.parquet", external_rows(options.work), {**told, **marks, **origin}
    )


if __name__ == "__main__":
    main()
