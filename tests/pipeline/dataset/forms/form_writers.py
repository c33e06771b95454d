"""The same rows written in every form, for the tests of what reads them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from PIL import Image

ROWS = 400


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def make_rows(form: str, count: int = ROWS) -> list[dict]:
    """Rows of which some lack the image, some the text, some both."""
    rows = [
        {
            "id": f"r{i:04d}",
            "image": None if i % 5 == 1 else _png(i),
            "text": None if i % 3 == 2 else f"caption {i} é",
            "label": str(i % 7),
        }
        for i in range(count)
    ]
    # A tar has no sample without a member.
    return [r for r in rows if form != "webdataset" or r["image"] or r["text"]]


def _images(rows: list[dict], folder: Path) -> list[str | None]:
    folder.mkdir(parents=True)
    names = []
    for row in rows:
        if row["image"] is not None:
            (folder / f"{row['id']}.png").write_bytes(row["image"])
        names.append(None if row["image"] is None else f"{row['id']}.png")
    return names


def write_parquet_struct(rows: list[dict], folder: Path) -> None:
    for part, half in enumerate((rows[:250], rows[250:])):
        cells = [r["image"] and {"bytes": r["image"], "path": f"{r['id']}.png"} for r in half]
        table = pa.table({c: [r[c] for r in half] for c in ("id", "text", "label")})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = table.append_column("image", pa.array(cells, kind))
        pq.write_table(table, folder / f"part-{part}.parquet", row_group_size=64)


def write_parquet_bytes(rows: list[dict], folder: Path) -> None:
    table = pa.table({c: [r[c] for r in rows] for c in ("id", "image", "text", "label")})
    kind = pa.schema(
        [
            ("id", pa.large_string()),
            ("image", pa.large_binary()),
            ("text", pa.large_string()),
            ("label", pa.string()),
        ]
    )
    pq.write_table(table.cast(kind), folder / "all.parquet", row_group_size=200)


def write_parquet_paths(rows: list[dict], folder: Path) -> None:
    names = _images(rows, folder / "pictures")
    table = pa.table({c: [r[c] for r in rows] for c in ("id", "text", "label")})
    paths = pa.array([n and f"pictures/{n}" for n in names])
    pq.write_table(table.append_column("image", paths), folder / "all.parquet")


def write_imagefolder(rows: list[dict], folder: Path) -> None:
    names = _images(rows, folder / "train")
    with open(folder / "train" / "metadata.jsonl", "w", encoding="utf-8") as file:
        for row, name in zip(rows, names, strict=True):
            line = {"file_name": name, **{c: row[c] for c in ("id", "text", "label")}}
            file.write(json.dumps(line) + "\n")


def write_imagefolder_csv(rows: list[dict], folder: Path) -> None:
    _write_csv(rows, _images(rows, folder / "sub"), folder / "sub" / "metadata.csv", "file_name")


def write_jsonl(rows: list[dict], folder: Path) -> None:
    names = _images(rows, folder / "pictures")
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for row, name in zip(rows, names, strict=True):
            line = {c: row[c] for c in ("id", "text", "label")}
            if name:
                line["image"] = f"pictures/{name}"
            file.write(json.dumps(line, ensure_ascii=False) + "\n\n")


def write_csv(rows: list[dict], folder: Path) -> None:
    names = [n and f"pictures/{n}" for n in _images(rows, folder / "pictures")]
    _write_csv(rows, names, folder / "rows.csv", "image_path")


def write_jsonl_gz(rows: list[dict], folder: Path) -> None:
    write_jsonl(rows, folder)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress((folder / "rows.jsonl").read_bytes()))
    (folder / "rows.jsonl").unlink()


def write_json_array(rows: list[dict], folder: Path) -> None:
    names = _images(rows, folder / "pictures")
    lines = [
        {c: row[c] for c in ("id", "text", "label")} | {"image": n and f"pictures/{n}"}
        for row, n in zip(rows, names, strict=True)
    ]
    (folder / "rows.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")


def write_csv_bz2_with_semicolons(rows: list[dict], folder: Path) -> None:
    names = [n and f"pictures\\{n}" for n in _images(rows, folder / "pictures")]
    plain = folder / "rows.csv"
    _write_csv(rows, names, plain, "image_path", delimiter=";")
    (folder / "rows.csv.bz2").write_bytes(bz2.compress(plain.read_bytes()))
    plain.unlink()


def write_zip(rows: list[dict], folder: Path) -> None:
    names = _images(rows, folder / "pictures")
    _write_csv(rows, names, folder / "METADATA.CSV", "File_Name")
    with zipfile.ZipFile(folder / "images.zip", "w") as packed:
        for name in filter(None, names):
            packed.write(folder / "pictures" / name, f"images/{name}")
    shutil.rmtree(folder / "pictures")


def write_coco(rows: list[dict], folder: Path) -> None:
    names = _images(rows, folder / "val2017")
    (folder / "annotations").mkdir()
    images = [
        {"id": row["id"], "file_name": name, "label": row["label"]}
        for row, name in zip(rows, names, strict=True)
    ]
    annotations = [
        {"id": i, "image_id": row["id"], "caption": row["text"]}
        for i, row in enumerate(rows)
        if row["text"]
    ]
    whole = {"info": {"year": 2017}, "images": images, "annotations": annotations}
    path = folder / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps(whole), encoding="utf-8")


def write_saved_dataset(rows: list[dict], folder: Path) -> None:
    import datasets

    columns = {c: [r[c] for r in rows] for c in ("id", "text", "label")}
    cells = [r["image"] and {"bytes": r["image"], "path": None} for r in rows]
    features = {name: datasets.Value("string") for name in columns}
    dataset = datasets.Dataset.from_dict(
        columns | {"image": cells},
        features=datasets.Features(features | {"image": datasets.Image()}),
    )
    dataset.save_to_disk(folder, num_shards=2)


def write_feather(rows: list[dict], folder: Path) -> None:
    table = pa.table({c: [r[c] for r in rows] for c in ("id", "image", "text", "label")})
    feather.write_feather(table, folder / "all.feather", chunksize=100)


def _write_csv(
    rows: list[dict], names: list[str | None], path: Path, column: str, delimiter: str = ","
) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", column, "text", "label"])
        for row, name in zip(rows, names, strict=True):
            writer.writerow([row["id"], name, row["text"], row["label"]])


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _write_tar(rows: list[dict], path: Path, metadata: bool = True) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for row in rows:
            members = {"png": row["image"], "txt": _encoded(row["text"])}
            if metadata:
                members["json"] = json.dumps({"label": row["label"]}).encode()
            for extension, data in members.items():
                if data is not None:
                    info = tarfile.TarInfo(f"{row['id']}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def write_webdataset(rows: list[dict], folder: Path) -> None:
    _write_tar(rows[:300], folder / "00000.tar")
    _write_tar(rows[300:], folder / "00001.tar")


def write_webdataset_gz(rows: list[dict], folder: Path) -> None:
    _write_tar(rows, folder / "00000.tar.gz")


def _write_img2dataset_table(rows: list[dict], folder: Path, images: bool = False) -> None:
    columns = {
        "key": [r["id"] for r in rows],
        "caption": [r["text"] for r in rows],
        "url": [f"https://example.com/{r['id']}.jpg" for r in rows],
        "status": ["failed_to_download" if r["image"] is None else "success" for r in rows],
        "error_message": ["HTTP Error 404" if r["image"] is None else None for r in rows],
        "label": [r["label"] for r in rows],
    }
    if images:
        columns["jpg"] = [r["image"] for r in rows]
    pq.write_table(pa.table(columns), folder / "00000.parquet", row_group_size=100)
    (folder / "00000_stats.json").write_text("{}")


def write_img2dataset_tar(rows: list[dict], folder: Path) -> None:
    _write_img2dataset_table(rows, folder)
    downloaded = [{**r, "text": r["text"] or ""} for r in rows if r["image"] is not None]
    _write_tar(downloaded, folder / "00000.tar")


def write_img2dataset_files(rows: list[dict], folder: Path) -> None:
    _write_img2dataset_table(rows, folder)
    _images(rows, folder / "00000")


def write_img2dataset_parquet(rows: list[dict], folder: Path) -> None:
    _write_img2dataset_table(rows, folder, images=True)


WRITERS = {
    "parquet of structs": (write_parquet_struct, "parquet", "no image in the row"),
    "parquet of bytes": (write_parquet_bytes, "parquet", "no image in the row"),
    "parquet of paths": (write_parquet_paths, "parquet", "no image in the row"),
    "imagefolder": (write_imagefolder, "imagefolder", "no image in the row"),
    "imagefolder with csv": (write_imagefolder_csv, "imagefolder", "no image in the row"),
    "jsonl": (write_jsonl, "jsonl", "no image in the row"),
    "csv": (write_csv, "csv", "no image in the row"),
    "jsonl, compressed": (write_jsonl_gz, "jsonl", "no image in the row"),
    "json array": (write_json_array, "jsonl", "no image in the row"),
    "csv, compressed, semicolons": (write_csv_bz2_with_semicolons, "csv", "no image in the row"),
    "imagefolder, images in a zip": (write_zip, "imagefolder", "no image in the row"),
    "coco": (write_coco, "coco", "no image in the row"),
    "saved dataset": (write_saved_dataset, "arrow", "no image in the row"),
    "feather": (write_feather, "arrow", "no image in the row"),
    "webdataset": (write_webdataset, "webdataset", "no image in the row"),
    "webdataset, compressed": (write_webdataset_gz, "webdataset", "no image in the row"),
    "img2dataset, tars": (write_img2dataset_tar, "img2dataset", "download failed: HTTP Error 404"),
    "img2dataset, files": (
        write_img2dataset_files,
        "img2dataset",
        "download failed: HTTP Error 404",
    ),
    "img2dataset, parquet": (
        write_img2dataset_parquet,
        "img2dataset",
        "download failed: HTTP Error 404",
    ),
}
