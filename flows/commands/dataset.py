"""Commands that look at a dataset before anything is done to it: init, inspect."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.terminal import AsJson, ConfigPath, errors_in_one_line


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
        Literal[
            "parquet",
            "imagefolder",
            "jsonl",
            "csv",
            "webdataset",
            "img2dataset",
            "coco",
            "arrow",
        ]
        | None,
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
        from pipeline.advice.draft import draft, name_of

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


def inspect(
    config: ConfigPath,
    time: Annotated[
        bool,
        typer.Option("--time", help="Load the models, and time them on a handful of rows."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is complete, missing and unreadable, what a run would do and take.

    \b
    Examples:
      rag4dmc inspect examples/scenes/dmc.yaml
      rag4dmc inspect my.yaml --time
    """
    with errors_in_one_line():
        from flows.progress import RunView
        from pipeline.advice.estimate import estimate
        from pipeline.config.config import load_config

        with RunView() as view:
            answer = estimate(load_config(config), view.step, time)
    for line in answer["advice"]:
        print(f"rag4dmc: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps(answer, indent=1))
        return
    _print_counts(answer["rows"], answer["files"], answer["counts"], answer["reasons"])
    _print_work(answer)
    print(f"output: {answer['output']}")


def _print_work(answer: dict[str, Any]) -> None:
    pending, made = answer["pending"], answer["made"]
    calls, disk = answer["calls"], answer["disk"]
    print(
        f"a run would complete {made['text']} texts ({_range(calls['captions'])} captions drawn)"
        f" and {made['image']} images ({_range(calls['images'])} drawn), and pass"
        f" {pending['none']} rows through, in {answer['shards']} shards"
    )
    for half, what in (("text", "captioner"), ("image", "image_generator")):
        if left := pending[half] - made[half]:
            print(f"  it would reject {left} rows that lack the {half}: there is no {what}")
    if any(answer["check"]["pairs"].values()):
        told = (f"{n} for {half}s" for half, n in answer["check"]["pairs"].items() if n)
        print(
            f"  its check would complete {' and '.join(told)} of the complete pairs, drawn likewise"
        )
    if answer["done"]:
        print(f"  {answer['done']} rows stand already")
    for found in answer["check"]["found"].values():
        if not found.get("off"):
            print(f"worth, by the check: {found['verdict']}")
        if drawn := found.get("draws"):
            bounds = f"{drawn['least']} to {drawn['most']} at {drawn['min_improvement']:g}"
            print(f"  {drawn['mean']:.1f} candidates a row, by the check, with {bounds}")
    for what in ("why", "sections"):
        if answer["done"] and answer[what]:
            label = "rows to do" if what == "why" else "settings that changed"
            print(f"  {label}: " + ", ".join(f"{n} {name}" for name, n in answer[what].items()))
    for name, pairs in answer["external"].items():
        print(f"  external {name}: {'not read yet' if pairs is None else f'{pairs} pairs'}")
    fetched = [model for model in answer["models"] if not model["here"]]
    for model in fetched:
        size = "size not known" if model["bytes"] is None else _size(model["bytes"])
        print(f"to download: {model['model']} ({model['role']}), {size}")
    if fetched and answer["done"] is None:
        print("  until then, all rows count as to be done")
    exports = f", {_size(disk['exports'])} for exports" if disk["exports"] else ""
    if disk["remembered"]:
        exports += f", {_size(disk['remembered'])} for candidates that are remembered"
    print(f"disk: about {_size(disk['completed'])}{exports}; {_size(disk['free'])} are free")
    for half, foreseen in answer["spending"].items():
        _print_spending(half, foreseen)
    if "time" in answer:
        _print_time(answer["time"])
    else:
        print("time: not measured (--time does it on a handful of rows)")


def _print_spending(half: str, foreseen: dict[str, Any]) -> None:
    told = [f"{_range(foreseen['requests'])} requests"]
    if foreseen["rests_on"] is None:
        told.append("their usage is not known yet (--time or a pilot with --limit counts it)")
    else:
        if any(foreseen["input_tokens"]) or any(foreseen["output_tokens"]):
            tokens = (_range(foreseen[f"{way}put_tokens"]) for way in ("in", "out"))
            told.append("{} tokens in, {} out".format(*tokens))
        if any(foreseen["images"]):
            told.append(f"{_range(foreseen['images'])} images")
        if foreseen["cost"] is not None:
            least, most = (f"{cost:,.2f}" for cost in foreseen["cost"])
            told.append(
                f"{foreseen['currency']} {least if least == most else f'{least} to {most}'}"
            )
        told.append(f"by {foreseen['answers']} answers to {foreseen['rests_on']}")
    print(f"server for {half}s: {', '.join(told)}")


def _print_time(time: dict[str, Any]) -> None:
    from flows.progress import duration

    least, most = time["seconds"]
    print(f"time: {duration(least)} to {duration(most)}, without fitting the knowledge base")
    for half, rows in time["rows"].items():
        fast, slow = time["seconds_a_row"][half]
        print(f"  {half}s: {fast:.2f} to {slow:.2f} s a row (measured on {rows})")


def _range(bounds: list[int]) -> str:
    return f"{bounds[0]} to {bounds[1]}" if bounds[0] != bounds[1] else str(bounds[0])


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
