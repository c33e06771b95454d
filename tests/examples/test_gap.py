"""The recipe of the gap, from a user's files over a quick training to an evaluation."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from examples.recipes.gap.train import train_captioner
from examples.recipes.gap.worlds import IMAGE, make
from generators.base import CaptionRequest, Example
from pipeline.config.config import load_config, make_config
from pipeline.evaluation.experiment import Experiment
from pipeline.models.components import Component
from tests.examples.gap_parts import small_language_model
from tests.quick_parts import COLOURS, picture

GAP = Path(__file__).parents[2] / "examples" / "recipes" / "gap"
CONFIGS = ("rsicd-a", "rsicd-b", "photographs")
EYES = "tests.examples.gap_parts:small_eyes"
ENCODER = {
    "kind": "pair",
    "image": {"kind": "examples.recipes.gap.encoders:EfficientNetEncoder", "network": EYES},
    "text": {"kind": "examples.own_encoder:ColourWordEncoder", "words": 64},
}


def pair(number: int, place: str) -> dict[str, Any]:
    """A noisy square with five sentences."""
    colour = list(COLOURS)[number % len(COLOURS)]
    buffer = io.BytesIO()
    picture(colour, number).save(buffer, "PNG")
    # Of their own: rows that share a sentence stay together.
    sentences = [f"A {colour} {place} , seen {number} {times} ." for times in range(4)]
    return {
        "id": f"{place} {number}",
        "image": {"bytes": buffer.getvalue(), "path": None},
        "captions": [*sentences, f"{place} {number} is {colour} ."],
    }


def write(path: Path, pairs: list[dict[str, Any]]) -> None:
    fields = [("id", pa.string()), ("image", IMAGE), ("captions", pa.list_(pa.string()))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(pairs, schema=pa.schema(fields)), path)


def publish(folder: Path) -> Path:
    """The three files as a reader has them."""
    write(folder / "rsicd" / "train.parquet", [pair(n, "viaduct") for n in range(60)])
    write(folder / "rsicd" / "test.parquet", [pair(n, "viaduct") for n in range(100, 112)])
    write(folder / "flickr8k" / "all.parquet", [pair(n, "dog") for n in range(200, 280)])
    return folder


def train(data: Path) -> None:
    speaker = small_language_model(data / "language_model")
    train_captioner(data, EYES, speaker, steps=3, minutes=5, batch=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both worlds with a captioner of a few steps."""
    folder = tmp_path_factory.mktemp("gap")
    make(publish(folder / "raw"), folder / "data" / "gap", held_back=20)
    train(folder / "data" / "gap")
    return folder


def column(path: Path, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(path)[name].to_pylist()
    return values


def test_no_pair_is_on_two_sides_and_external_texts_are_the_last_sentences(world: Path) -> None:
    photographs, rsicd = (world / "data" / "gap" / name for name in ("photographs", "rsicd"))
    parts = ["learned", "target", "relevant"]
    sides = [set(column(photographs / f"{part}.parquet", "id")) for part in parts]
    assert [len(side) for side in sides] == [40, 30, 10]
    assert len(set().union(*sides)) == 80
    others = set(column(photographs / "others.parquet", "id"))
    assert others == sides[1] | sides[2]
    held = set(column(rsicd / "relevant.parquet", "id"))
    targets = set(column(rsicd / "target.parquet", "id"))
    assert len(held) == 20 and len(targets) == 40 + 12 and not held & targets
    assert all(" is " in text for text in column(rsicd / "relevant.parquet", "text"))
    assert {len(own) for own in column(rsicd / "target.parquet", "text")} == {5}


def test_the_mask_hides_texts_of_the_published_training_split_alone(world: Path) -> None:
    with (world / "data" / "gap" / "rsicd" / "mask.csv").open() as file:
        said = {row["id"]: row["missing"] for row in csv.DictReader(file)}
    assert said.keys() == set(column(world / "data" / "gap" / "rsicd" / "target.parquet", "id"))
    tested = {row_id for row_id, half in said.items() if half == "test"}
    assert tested == {f"viaduct {n}" for n in range(100, 112)}
    assert list(said.values()).count("text") == 28 and list(said.values()).count("none") == 12


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    with pytest.raises(ValueError, match="held_back must lie between 0 and 60; got 60"):
        make(folder, tmp_path / "out", held_back=60)
    write(folder / "rsicd" / "test.parquet", [pair(1, "viaduct")])
    with pytest.raises(ValueError, match="id 'viaduct 1' stands in both splits"):
        make(folder, tmp_path / "out", held_back=20)
    write(folder / "rsicd" / "test.parquet", [pair(1, "viaduct"), pair(1, "viaduct")])
    with pytest.raises(ValueError, match=r"test\.parquet: 2 rows have only 1 different ids"):
        make(folder, tmp_path / "out", held_back=20)
    pq.write_table(pa.table({"id": ["a"]}), folder / "flickr8k" / "all.parquet")
    write(folder / "rsicd" / "test.parquet", [pair(100, "viaduct")])
    with pytest.raises(ValueError, match=r"all\.parquet: no column 'image' among id"):
        make(folder, tmp_path / "out", held_back=20)


def test_a_finished_training_looks_at_nothing_again(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world / "data" / "gap"
    before = (folder / "captioner" / "model.safetensors").read_bytes()
    seen = np.load(folder / "work" / EYES.replace(":", "-") / "cells-00000.npy")
    assert seen.shape == (40, 16, 12) and seen.dtype == np.float16
    monkeypatch.setattr("tests.examples.gap_parts.small_eyes", None)
    train(folder)
    assert (folder / "captioner" / "model.safetensors").read_bytes() == before


def captioner(world: Path, **settings: Any) -> Any:
    """The captioner as a run makes it."""
    values = {
        "kind": "examples.recipes.gap.captioner:PhotographCaptioner",
        "model": str(world / "data" / "gap" / "captioner"),
        "max_new_tokens": 8,
        **settings,
    }
    part = Component.choose("captioner", values, {})
    made = part.create(part.resolve(world, offline=True))
    part.load(made)
    return made


def request(number: int, *texts: str, seeds: tuple[int, ...] = (1, 2)) -> CaptionRequest:
    examples = tuple(Example(f"e{n}", text) for n, text in enumerate(texts))
    colour = list(COLOURS)[number % len(COLOURS)]
    return CaptionRequest(f"row {number}", picture(colour, number), examples, seeds)


def test_a_row_gets_the_same_captions_alone_as_beside_rows_with_longer_prompts(world: Path) -> None:
    part = captioner(world)
    rows = [request(0), request(1, "a zorbel is green", "a green zorbel"), request(2, "a viaduct")]
    together = part.generate(rows)
    alone = [part.generate([row])[0] for row in rows]
    assert [[c.text for c in got.candidates] for got in together] == [
        [c.text for c in got.candidates] for got in alone
    ]
    assert together[0].candidates[0].prompt == "Please write a caption of the image. Caption:"
    assert together[1].candidates[0].shown == ("e0", "e1")
    assert together[0].candidates[0].text != together[0].candidates[1].text
    assert part.memory() > 0


def test_a_template_that_does_not_fit_is_told_at_the_start(world: Path) -> None:
    with pytest.raises(Exception, match="does not fit; the model has room for 1 beside"):
        captioner(world, max_new_tokens=206)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_asks_the_captioner_and_a_judge_with_other_eyes(name: str) -> None:
    given = load_config(GAP / f"{name}.yaml")
    assert given.captioner["kind"].endswith(":PhotographCaptioner")
    assert given.evaluation.judge["image"]["network"] != given.encoder["image"]["network"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "rsicd-b")) for n in CONFIGS]
)
def test_a_config_evaluates_its_world(world: Path, name: str) -> None:
    values = yaml.safe_load((GAP / f"{name}.yaml").read_text())
    # Texts alone are missing.
    assert values.pop("image_generator")["model"] == "../../../data/gap/images"
    quick: dict[str, Any] = {
        "encoder": ENCODER,
        "captioner": values["captioner"] | {"max_new_tokens": 6},
        "knowledge_base": {"mapping": {"method": "ridge"}, "device": "cpu"},
        "generation": {"n": 2, "attempts": 1},
        "output": str(world / "runs" / name),
        # Squares of one colour are near-duplicates of each other.
        "evaluation": values["evaluation"]
        | {
            "draws": 1,
            "duplicate_cosine": 2.0,
            "judge": ENCODER | {"text": ENCODER["text"] | {"words": 48}},
            "downstream": {"kind": "heads", "seeds": 2, "steps": 2, "device": "cpu"},
        },
    }
    if name == "rsicd-b":
        quick["evaluation"]["mask"] = "../../../data/gap/rsicd/mask.csv"
    base = world / "examples" / "recipes" / "gap"
    base.mkdir(parents=True, exist_ok=True)
    results = Experiment(make_config(values | quick, base)).run(["drop", "rag4dmc", "complete"])
    assert results.facts["texts_are_lists"] and not results.facts["judge_selects"]
    assert results.facts["test"] == {"rsicd-a": 8, "rsicd-b": 12, "photographs": 6}[name]
    told = results.value(0.7, "rag4dmc", group="direct", missing="text", measure="cosine")
    assert told is not None
    for variant in ("drop", "rag4dmc", "complete"):
        recalls = results.mean_recall(0.7, variant)
        assert recalls is not None and len(recalls) == 2
