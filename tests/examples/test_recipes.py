"""The recipes' configs on a few rows in the datasets' own layout, with quick parts for the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.recipes.karpathy import convert
from kb.encoders import ENCODERS
from pipeline.config.config import load_config, make_config
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.protocol.split import read_mask
from pipeline.models.components import Component
from tests import quick_worlds
from tests.pipeline.dataset.forms.form_writers import write_img2dataset_tar
from tests.quick_parts import COLOURS, picture
from tests.worlds import CHECKPOINTS

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
NAMES = ("coco", "flickr30k", "rsicd")
ROWS = 48


def listed(name: str, number: int) -> dict[str, Any]:
    """An image as the dataset's own JSON lists it."""
    split = "test" if number % 6 == 0 else "val" if number % 6 == 1 else "train"
    colour = list(COLOURS)[number % len(COLOURS)]
    raw = [f"a {colour} square with edge {number}", f" the {colour} field number {number} ."]
    sentences = [
        {"raw": text, "tokens": text.split(), "imgid": number, "sentid": 2 * number + place}
        for place, text in enumerate(raw)
    ]
    image = {"imgid": number, "split": split, "sentences": sentences}
    if name == "coco":
        folder = "train2014" if split == "train" else "val2014"
        if number % 12 == 2:
            folder, image["split"] = "val2014", "restval"
        filename = f"COCO_{folder}_{number:012d}.jpg"
        return image | {"filepath": folder, "filename": filename, "cocoid": number}
    if name == "rsicd":
        return image | {"filename": f"airport_{number}.jpg"}
    return image | {"filename": f"{1000092795 + number}.jpg"}


def publish(folder: Path, name: str) -> tuple[Path, Path]:
    """The JSON file and the images' folder, as they are downloaded."""
    images = [listed(name, number) for number in range(ROWS)]
    for number, image in enumerate(images):
        path = folder / "images" / image.get("filepath", "") / image["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(list(COLOURS)[number % len(COLOURS)], number).save(path)
    layout = folder / f"dataset_{name}.json"
    layout.write_text(json.dumps({"dataset": name, "images": images}))
    return layout, folder / "images"


def publish_external(folder: Path) -> None:
    """What img2dataset leaves: some pairs, and a download that failed."""
    folder.mkdir(parents=True)
    rows = [
        {"id": f"{number:09d}", "label": "", **pair}
        for number, row in enumerate(quick_worlds.row(number) for number in range(100, 131))
        for pair in [{"image": row["image"]["bytes"], "text": row["text"]}]
    ]
    rows[3]["image"] = None
    write_img2dataset_tar(rows, folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_is_converted_from_its_own_layout_and_its_recipe_loads(
    tmp_path: Path, name: str
) -> None:
    layout, images = publish(tmp_path, name)
    counts = convert(layout, images, tmp_path, rate=0.5)
    assert counts == {
        "pairs": 40,
        "absent": 0,
        "test": 8,
        "none": 16,
        "text": 8,
        "image": 8,
    }
    given = load_config(RECIPES / f"{name}.yaml")
    assert [part.kind for part in given.components()] == ["open_clip", "blip2", "sdxl"]
    judge = Component.choose("evaluation.judge", given.evaluation.judge, ENCODERS).settings.models()
    assert judge["model"] != given.encoder_component().settings.models()["model"]


@pytest.mark.parametrize(
    "name", ["coco", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
)
def test_a_recipe_evaluates_its_dataset_in_its_own_layout(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data" / name
    layout, images = publish(data, name)
    convert(layout, images, data, rate=0.5)
    publish_external(tmp_path / "data" / "cc3m")
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    small = {"seeds": 2, "steps": 1, "batch_size": 8, "device": "cpu"}
    quick = {
        "encoder": {"kind": "tests.quick_parts:QuickEncoder"},
        "captioner": {"kind": "tests.quick_parts:QuickCaptioner"},
        "image_generator": {"kind": "tests.quick_parts:QuickPainter"},
        "knowledge_base": {"mapping": {"method": "start"}, "device": "cpu"},
        # Squares of one colour are near-duplicates of each other.
        "evaluation": values["evaluation"]
        | {
            "judge": values["evaluation"]["judge"]
            | {"model": str(CHECKPOINTS / "encoder-judge"), "pretrained": None},
            "downstream": values["evaluation"]["downstream"] | small,
            "duplicate_cosine": 2.0,
        },
    }
    base = tmp_path / "examples" / "recipes"
    base.mkdir(parents=True)
    experiment = Experiment(make_config(values | quick, base))
    results = experiment.run(["rag4dmc"])
    assert results.facts["test"] == 8
    assert results.facts["texts_are_lists"] and not results.facts["judge_selects"]
    done = results.value(0.5, "rag4dmc", group="rows", measure="completed")
    assert done is not None and done.value == 16
    judged = results.value(0.5, "rag4dmc", group="direct", missing="text", measure="cosine")
    assert judged is not None
    recalls = results.mean_recall(0.5, "rag4dmc")
    assert recalls is not None and len(recalls) == 2
    draw = experiment.draw()
    job = draw.runs.job_of(draw.arms(["rag4dmc"])[0])
    sources = job.knowledge.checked().pairs["source"].to_pylist()
    assert "cc3m" in sources and sources.count("internal") == 16


def test_a_published_mask_is_cut_to_the_rows_that_are_here(tmp_path: Path) -> None:
    layout, images = publish(tmp_path, "flickr30k")
    absent = f"{1000092795 + 2}.jpg"
    (images / absent).unlink()
    published = tmp_path / "published.csv"
    kinds = {0: "test", 1: "none", 2: "text", 3: "text", 4: "image", 5: "none"}
    lines = [f"{1000092795 + number}.jpg,{kind}" for number, kind in kinds.items()]
    published.write_text("\n".join(["id,missing", *lines]))
    counts = convert(layout, images, tmp_path / "out", mask=published)
    # Of val is the second, and the third is not there.
    assert counts["left out"] == 2 and counts["absent"] == 1
    assert (counts["text"], counts["image"], counts["test"]) == (1, 1, 8)
    written = read_mask(tmp_path / "out" / "mask.csv")
    ids = [
        json.loads(line)["id"]
        for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()
    ]
    assert list(written) == ids and absent not in ids
    published.write_text("id,missing\nelsewhere,text\n")
    with pytest.raises(ValueError, match="names none of the 39 images that are here"):
        convert(layout, images, tmp_path / "out", mask=published)


def test_a_file_of_another_layout_or_without_its_images_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"annotations": []}')
    with pytest.raises(ValueError, match=r"other\.json: no JSON of Karpathy's layout"):
        convert(other, tmp_path, tmp_path / "out")
    layout, _ = publish(tmp_path, "rsicd")
    with pytest.raises(ValueError, match="none of the 40 listed images is here"):
        convert(layout, tmp_path / "nowhere", tmp_path / "out")
