"""Commands that look at a dataset before anything is done to it: init, inspect."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.terminal import AsJson, ConfigPath, errors_in_one_line, job_of


def init(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="File, folder, glob or fsspec URL of the incomplete dataset.",
            show_default=False,
        ),
    ],
    external: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]PATH", help="A dataset of complete pairs; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The config; default NAME.yaml here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the config.")] = False,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Column of ids, or none.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option("--image", metavar="COLUMN", help="Column of images, or none.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option("--text", metavar="COLUMN", help="Column of texts, or none.")
    ] = None,
    format: Annotated[
        Literal["parquet", "imagefolder", "jsonl", "csv", "webdataset", "img2dataset"] | None,
        typer.Option(help="The form of the data, where the files' names don't tell it."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Folder or hub id; default ViT-B-32.")
    ] = None,
    captioner: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Folder or hub id; default BLIP-2.")
    ] = None,
    image_generator: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Folder or hub id; default SDXL.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a dataset, and write a short commented config that completes it.

    \b
    Examples:
      rag4dmc init data/mine
      rag4dmc init data/mine --external cc3m=data/cc3m --output my.yaml
      rag4dmc init "photos/*.parquet" --text alt --id none --force
    """
    with errors_in_one_line():
        from flows.progress import RunView
        from pipeline.draft import draft, name_of

        path = output or Path(f"{name_of(dataset)}.yaml")
        columns = {"id": id_column, "image": image_column, "text": text_column}
        models = {
            "encoder": encoder,
            "captioner": captioner,
            "image_generator": image_generator,
        }
        with RunView() as view:
            found = draft(
                dataset,
                path,
                external=external or (),
                columns={role: name for role, name in columns.items() if name},
                format=format,
                models={section: model for section, model in models.items() if model},
                force=force,
                progress=view.step,
            )
    for warning in found.warnings:
        print(f"rag4dmc: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(vars(found) | {"path": str(found.path)}, indent=1))
        return
    _print_counts(found.rows, found.files, found.counts, found.reasons)
    print("columns: " + ", ".join(f"{role} {name}" for role, name in found.columns.items()))
    for name, pairs in found.external.items():
        print(f"external {name}: {pairs} complete pairs")
    print(f"wrote {path}; next: rag4dmc inspect {path}")


def _print_counts(
    rows: int, files: int, counts: dict[str, int], reasons: dict[str, dict[str, int]]
) -> None:
    labels = {"complete": "complete", "text": "without text", "image": "without image"}
    print(f"{rows} rows in {files} file{'s' if files != 1 else ''}")
    for name, label in (labels | {"both": "without either"}).items():
        print(f"  {counts[name]:>8} {label}")
    for half, found in reasons.items():
        for reason, count in found.items():
            print(f"           {half}: {reason} ({count})")


def inspect(config: ConfigPath, as_json: AsJson = False) -> None:
    """Say what is complete, missing and unreadable, and what a run would do.

    \b
    Examples:
      rag4dmc inspect examples/emoji/dmc.yaml
    """
    with errors_in_one_line():
        from flows.progress import RunView

        with RunView() as view:
            job = job_of(config, view)
            plan = job.plan()
        generation = job.config.generation
        answer: dict[str, Any] = {
            "rows": len(job.catalog),
            "files": len(job.catalog.dataset.files),
            **job.catalog.counts(),
            "reasons": job.catalog.reasons(),
            "pending": plan.pending,
            "done": plan.done,
            "shards": len(plan.shards),
            "captions_to_draw": plan.pending["text"] * generation.n,
            "images_to_draw": plan.pending["image"] * generation.n,
            "output": str(job.folder),
        }
    if as_json:
        print(json.dumps(answer, indent=1))
        return
    _print_counts(answer["rows"], answer["files"], job.catalog.counts(), answer["reasons"])
    print(
        f"a run would complete {plan.pending['text']} texts ({answer['captions_to_draw']} captions"
        f" drawn) and {plan.pending['image']} images ({answer['images_to_draw']} drawn)"
        f" in {answer['shards']} shards; {plan.done} rows stand already"
    )
    print(f"output: {answer['output']}")
