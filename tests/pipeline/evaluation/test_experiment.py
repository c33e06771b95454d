"""Whole evaluations of coloured squares: every variant through the pipeline, by parts that are quick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.evaluation.changes import parse_sweep
from pipeline.evaluation.curves import curves
from pipeline.evaluation.downstream import Downstream, Pairs, Ranks
from pipeline.evaluation.draw import Draw
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.page import write_page
from pipeline.evaluation.results import Results
from pipeline.evaluation.tables import tables
from pipeline.evaluation.variants import ABLATIONS, TABLE
from pipeline.external import INTERNAL
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.worlds import CHECKPOINTS

EVERYTHING = [*TABLE, *ABLATIONS]
# A draw, what each of its arms trained on, by rate and label, and the results.
Trained = tuple[Draw, dict[tuple[float, str], Pairs], Results]


def world(folder: Path, changes: Mapping[str, Any] | None = None, **evaluation: Any) -> Path:
    """60 pairs and 60 external ones, of which two are copies of the dataset's."""
    pairs = quick_worlds.rows(60, 0, 0)
    quick_worlds.write(folder / "data" / "a.parquet", pairs)
    others = [quick_worlds.row(number) | {"id": f"x{number}"} for number in range(100, 158)]
    copies = [dict(pairs[number]) | {"id": f"copy {number}"} for number in range(2)]
    quick_worlds.write(folder / "others" / "a.parquet", others + copies)
    settings = {"rates": [0.5], "downstream": None, "duplicate_cosine": 0.999999} | evaluation
    return quick_worlds.config(
        folder,
        external=[{"name": "others", "path": "others", "licence": "CC0"}],
        evaluation=settings,
        **(changes or {}),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOG, str(place.parent))
        return Experiment(load_config(place)).run(EVERYTHING)


def test_every_variant_completes_the_hidden_halves(results: Results) -> None:
    assert results.labels == [name for name in EVERYTHING if name not in ("drop", "complete")]
    hidden = results.facts["train"] // 2
    halves = {"texts-alone": ["text"], "images-alone": ["image"]}
    for label in results.labels:
        outcomes = {
            status: results.value(0.5, label, group="rows", measure=status)
            for status in ("completed", "rejected")
        }
        counts = {status: one.value if one else 0 for status, one in outcomes.items()}
        left_out = hidden // 4 if label == "better-images" else 0
        assert sum(counts.values()) + left_out == hidden, label
        assert (counts["rejected"] > 0) == (label in halves)
        for missing, measure in (("text", "CIDEr"), ("text", "cosine"), ("image", "cosine")):
            found = results.value(0.5, label, group="direct", missing=missing, measure=measure)
            assert (found is not None) == (missing in halves.get(label, ["text", "image"]))


def test_variants_are_compared_row_by_row(results: Results) -> None:
    gain = results.direct_gain(0.5, "rag4dmc", "nearest", "text", "cosine")
    values = [
        results.value(0.5, n, group="direct", missing="text", measure="cosine")
        for n in ("rag4dmc", "nearest")
    ]
    assert gain is not None and values[0] is not None and values[1] is not None
    assert gain.mean == pytest.approx(values[0].value - values[1].value)
    assert results.direct_gain(0.5, "rag4dmc", "drop", "text", "cosine") is None
    titles = [table.title for table in tables(results)]
    assert "Orderings by what was generated, 50% missing" in titles


def test_what_was_shown_decides_what_is_measured(results: Results) -> None:
    assert results.value(0.5, "direct", group="retrieval") is None
    used = results.value(0.5, "purified", group="retrieval", used=True)
    assert used is not None and used.mode == "cross"
    used = results.value(0.5, "rag4dmc", group="retrieval", used=True)
    assert used is not None and used.mode == "fusion"


def test_copies_of_test_images_are_in_no_knowledge_base(results: Results, place: Path) -> None:
    draw = Experiment(load_config(place)).draw()
    test = set(draw.world.test)
    copies = {f"copy {n}" for n in range(2) if quick_worlds.rows(60, 0, 0)[n]["id"] in test}
    assert set(draw.world.excluded["others"]) == copies
    images = {draw.world.rows[row_id].image for row_id in test}
    for arm in draw.arms(["vanilla", "combined", "rag4dmc"]):
        job = draw.runs.job_of(arm)
        pairs = job.knowledge_base.pairs
        internal = {
            i
            for i, s in zip(*(pairs[c].to_pylist() for c in ("id", "source")), strict=True)
            if s == INTERNAL
        }
        assert not internal & test
        assert not {f"others/{row_id}" for row_id in copies} & set(pairs["id"].to_pylist())
        assert internal == set(draw.world.train) - set(arm.masked.hidden)
    table = pq.read_table(draw.arms(["drop"])[0].masked.path)
    assert not images & {row["bytes"] for row in table["image"].to_pylist() if row}


def test_the_same_again_generates_nothing_and_finds_the_same(
    results: Results, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = calls(place.parent)
    assert before
    monkeypatch.setenv(LOG, str(place.parent))
    again = Experiment(load_config(place)).run(EVERYTHING)
    assert calls(place.parent) == before
    assert again.records == results.records


def test_fewer_candidates_are_taken_from_those_that_were_drawn(
    results: Results, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = calls(place.parent)
    monkeypatch.setenv(LOG, str(place.parent))
    config = load_config(place)
    found = Experiment(config).run(["rag4dmc"], sweeps=[parse_sweep("n=1,2", config)])
    assert found.labels == ["rag4dmc", "rag4dmc n=1", "rag4dmc n=2"]
    assert calls(place.parent) == before
    own, swept = (
        [r.value for r in found.records if r.label == label] for label in found.labels[::2]
    )
    assert own == swept
    pairs = [(better, worse) for better, worse, _ in found.orderings()][-2:]
    assert pairs == [("rag4dmc n=1", "rag4dmc"), ("rag4dmc n=2", "rag4dmc")]
    shown = {table.title: table.rows for table in tables(found)}
    gains = shown["Orderings by what was generated, 50% missing"]
    assert gains[-1][0] == "rag4dmc n=2 − rag4dmc"
    assert set(gains[-1][1:]) == {"+0.000 ± 0.000"}


def test_another_truth_or_niqe_model_is_another_direct_figure(tmp_path: Path) -> None:
    # The one candidate of a row follows from what is observed of it, whatever else changes.
    once = {
        "generation": {"n": 1},
        "selection": {"image": {"niqe": "fitted", "niqe_block": 16}},
    }
    place = world(tmp_path / "a", once)
    draw = Experiment(load_config(place)).draw()
    before = Experiment(load_config(place)).run(["direct"])
    hidden = draw.world.masks([0.5])[0].hidden
    told = next(row_id for row_id, half in hidden.items() if half == "text")
    seen = next(row_id for row_id in draw.world.train if row_id not in hidden)
    changed = quick_worlds.rows(60, 0, 0)
    for row in changed:
        if row["id"] == told:
            row["text"] = "a square of another kind altogether"
        if row["id"] == seen:
            row["image"] = quick_worlds.row(999)["image"]
    found = []
    for name in ("a", "b"):
        again = world(tmp_path / name, once)
        quick_worlds.write(tmp_path / name / "data" / "a.parquet", changed)
        found.append(Experiment(load_config(again)).run(["direct"]))
    for missing, measure in (("text", "CIDEr"), ("text", "cosine"), ("image", "NIQE")):
        was, kept, fresh = (
            one.value(0.5, "direct", group="direct", missing=missing, measure=measure)
            for one in (before, *found)
        )
        assert was is not None and kept is not None
        assert kept == fresh and kept.value != was.value, measure


def test_results_are_kept_as_parquet_and_shown_as_a_page(results: Results, tmp_path: Path) -> None:
    table = pq.read_table(results.save(tmp_path))
    assert len(table) == len(results.records)
    assert b"rag4dmc" in table.schema.metadata
    page = write_page(results, tmp_path / "index.html").read_text()
    for one in tables(results):
        assert one.title in page
        assert one.headings[0] in page and all(f">{row[0]}</th>" in page for row in one.rows)
    assert "48.9" in page and "84%" in page
    assert "judged by the encoder that selected them" in page


def test_texts_or_images_alone_can_be_hidden_and_rates_given(tmp_path: Path) -> None:
    place = world(tmp_path, missing="text")
    found = Experiment(load_config(place)).run(["rag4dmc"], rates=[0.3, 0.6])
    assert found.rates == [0.3, 0.6]
    assert {r.missing for r in found.records if r.group == "direct"} == {"text"}


def test_a_mask_file_says_what_is_hidden_and_tested(tmp_path: Path) -> None:
    place = world(tmp_path, mask="mask.csv")
    ids = [row["id"] for row in quick_worlds.rows(60, 0, 0)]
    kinds = ["test"] * 10 + ["text"] * 12 + ["image"] * 8
    lines = [f"{row_id},{kind}" for row_id, kind in zip(ids, kinds, strict=False)]
    (tmp_path / "mask.csv").write_text("\n".join(["id,missing", *lines]))
    found = Experiment(load_config(place)).run(["rag4dmc"])
    assert found.facts["test"] == 10
    assert found.rates == [pytest.approx(0.4)]
    done = found.value(0.4, "rag4dmc", group="rows", measure="completed")
    assert done is not None and done.value == 20


def test_an_evaluation_that_can_not_be_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all 48 training pairs are near-duplicates"):
        Experiment(load_config(world(tmp_path, duplicate_cosine=0.1))).run(["rag4dmc"])
    with pytest.raises(ConfigError, match="hides 0; some must stay complete"):
        Experiment(load_config(world(tmp_path, rates=[0.001]))).run(["rag4dmc"])
    place = world(tmp_path, downstream={"steps": 1})
    with pytest.raises(ConfigError, match="must be an encoder of kind open_clip"):
        Experiment(load_config(place)).run(["drop"])
    with pytest.raises(ConfigError, match="needs a variant that generates"):
        config = load_config(place)
        Experiment(config).run(["drop"], sweeps=[parse_sweep("n=1", config)])


def refused(place: Path, message: str, *given: Any, sweep: str | None = None) -> None:
    """An evaluation is refused before anything is generated."""
    config = load_config(place)
    sweeps = [] if sweep is None else [parse_sweep(sweep, config)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOG, str(place.parent))
        with pytest.raises(ConfigError, match=message):
            Experiment(config).run(*given, sweeps=sweeps)
    assert not calls(place.parent)


def test_too_few_whole_pairs_to_fine_tune_on_are_known_at_once(tmp_path: Path) -> None:
    place = world(tmp_path, rates=[0.5, 0.98], downstream={"steps": 1})
    message = "of 48 training pairs a missing rate of 0.98 leaves 1 whole, and fine-tuning needs 2"
    refused(place, message, ["rag4dmc", "drop"])


def test_a_point_that_a_variant_can_not_have_is_known_at_once(tmp_path: Path) -> None:
    refused(world(tmp_path), "image_generator", ["nearest"], sweep="image_generator.style=bold")


def test_a_mask_file_is_not_overridden_nor_asks_for_what_can_not_be_made(tmp_path: Path) -> None:
    place = world(tmp_path, {"image_generator": None}, mask="mask.csv")
    ids = [row["id"] for row in quick_worlds.rows(60, 0, 0)]
    lines = [f"{row_id},{kind}" for row_id, kind in zip(ids, ["text", "image"] * 8, strict=False)]
    (tmp_path / "mask.csv").write_text("\n".join(["id,missing", *lines]))
    refused(place, "--rates: must not be given with evaluation.mask.*got 0.3", ["rag4dmc"], [0.3])
    message = (
        r"evaluation.mask: mask.csv hides the image of \d rows, and the config has no image_gen"
    )
    refused(place, message, ["rag4dmc"])


def test_a_config_without_an_image_generator_is_evaluated_on_texts(tmp_path: Path) -> None:
    place = world(tmp_path)
    values = yaml.safe_load(place.read_text(encoding="utf-8"))
    values["image_generator"] = None
    place.write_text(yaml.safe_dump(values), encoding="utf-8")
    experiment = Experiment(load_config(place))
    assert set(experiment.draw().world.masks([0.5])[0].hidden.values()) == {"text"}
    found = experiment.run(["nearest", "rag4dmc", "texts-alone"])
    assert found.labels == ["nearest", "rag4dmc"]
    assert {record.missing for record in found.records if record.missing} == {"text"}

    values["evaluation"]["missing"] = "image"
    place.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="the config has no image_generator"):
        Experiment(load_config(place)).run(["rag4dmc"])


def test_draws_have_test_sets_and_masks_of_their_own(tmp_path: Path) -> None:
    experiment = Experiment(load_config(world(tmp_path, draws=2)))
    first, second = experiment.draw(0), experiment.draw(1)
    assert set(first.world.test) != set(second.world.test)
    assert first.world.masks([0.5])[0].hidden != second.world.masks([0.5])[0].hidden
    found = experiment.run(["nearest", "rag4dmc"])
    assert {record.draw for record in found.records} == {0, 1}
    quality = [r.value for r in found.records if r.label == "nearest" and r.measure == "cosine"]
    pooled = found.value(0.5, "nearest", measure="cosine", missing="text")
    assert pooled is not None and min(quality) <= pooled.value <= max(quality)
    page = write_page(found, tmp_path / "index.html").read_text()
    assert "2 draws" in page and "2 times, with test sets and masks of their own" in page


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An evaluation with fine-tuning at two rates and with a sweep, and what each arm trained on."""
    judge = {"kind": "open_clip", "model": str(CHECKPOINTS / "encoder-judge")}
    place = world(
        tmp_path_factory.mktemp("trained"),
        rates=[0.4, 0.7],
        judge=judge,
        downstream={"seeds": 2, "steps": 1, "batch_size": 8, "device": "cpu"},
    )
    config = load_config(place)
    handed: list[Pairs] = []
    original = Downstream.measure

    def measure(self: Downstream, train: Pairs, seeds: int) -> Ranks:
        handed.append(train)
        return original(self, train, seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Downstream, "measure", measure)
        experiment = Experiment(config)
        variants, sweeps = ["drop", "rag4dmc", "complete"], [parse_sweep("n=1,2", config)]
        results = experiment.run(variants, sweeps=sweeps)
    draw = experiment.draw()
    arms = [(arm.masked.rate, arm.label) for arm in draw.arms(variants, sweeps=sweeps)]
    return draw, dict(zip(arms, handed, strict=True)), results


def test_each_variant_trains_on_its_own_pairs(
    trained: Trained,
) -> None:
    draw, handed, results = trained
    world = draw.world
    for masked in world.masks([0.4, 0.7]):
        hidden, rate = masked.hidden, masked.rate
        whole = [row_id for row_id in world.train if row_id not in hidden]
        assert list(zip(*vars(handed[rate, "drop"]).values(), strict=True)) == [
            (world.rows[i].image, world.rows[i].texts) for i in whole
        ]
        assert list(zip(*vars(handed[rate, "complete"]).values(), strict=True)) == [
            (world.rows[i].image, world.rows[i].texts) for i in world.train
        ]
        completed = handed[rate, "rag4dmc"]
        job = draw.runs.job_of(draw.arms(["rag4dmc"], [rate])[0])
        made = {row["id"]: row for row in job.completed().to_table().to_pylist()}
        assert len(completed) == len(world.train)
        for row_id, image, texts in zip(
            world.train, completed.images, completed.texts, strict=True
        ):
            truth, half = world.rows[row_id], hidden.get(row_id)
            assert (image == truth.image) == (half != "image")
            assert (tuple(texts) == truth.texts) == (half != "text")
            assert (image, texts[0]) == (made[row_id]["image"]["bytes"], made[row_id]["text"])
        for label in ("drop", "rag4dmc", "complete"):
            rows = results.value(rate, label, group="rows", measure="trained on")
            assert rows is not None and rows.value == len(handed[rate, label])
        assert handed[rate, "rag4dmc n=2"].digest() == completed.digest()
        assert handed[rate, "rag4dmc n=1"].digest() != completed.digest()
    assert results.start is not None
    assert results.start.image_to_text.shape == (1, len(world.test))


def test_rates_and_sweeps_are_drawn_as_curves(trained: Trained, tmp_path: Path) -> None:
    _, _, results = trained
    charts = {chart.label: chart for chart in curves(results)}
    assert list(charts) == [
        "mean R@1 over the missing rate",
        "mean R@1 over n at 40% missing",
        "mean R@1 over n at 70% missing",
    ]
    rates, sweep, _ = charts.values()
    assert [line.name for line in rates.lines] == ["drop", "rag4dmc", "complete"]
    assert [name for _, name in rates.columns] == ["40%", "70%"]
    assert all(len(line.points) == 2 for line in rates.lines)
    # One scale for all: a higher point is a higher recall, whichever line it is of.
    recalls = [(results.mean_recall(0.7, line.name), line.points[1].y) for line in rates.lines]
    means = [(float(own.mean()), y) for own, y in recalls if own is not None]
    assert sorted(means) == sorted(means, key=lambda one: -one[1])
    paper = {line.name: [mark.title for mark in line.marks] for line in rates.lines}
    assert paper["drop"] == ["drop, 70%: 0.352"]
    assert [line.name.split(":")[0] for line in sweep.lines] == [
        *("drop", "rag4dmc", "complete"),
        "rag4dmc n",
    ]
    assert [point.title.split(":")[0] for point in sweep.lines[-1].points] == [
        "rag4dmc n, 1",
        "rag4dmc n, 2",
    ]
    page = write_page(results, tmp_path / "index.html").read_text()
    assert all(line.path in page for chart in charts.values() for line in chart.lines)


def test_without_fine_tuning_curves_are_of_what_was_generated(place: Path) -> None:
    config = load_config(place)
    found = Experiment(config).run(["rag4dmc"], sweeps=[parse_sweep("n=1,2", config)])
    charts = curves(found)
    assert [chart.label for chart in charts] == [
        "cosine of the generated text to the hidden one over n at 50% missing",
        "cosine of the generated image to the hidden one over n at 50% missing",
    ]
    for point in charts[0].lines[-1].points:
        assert point.low > point.y > point.high


def test_what_is_asked_for_twice_is_measured_once(place: Path, results: Results) -> None:
    config = load_config(place)
    sweeps = [parse_sweep(text, config) for text in ("n=2,2", "n=2")]
    found = Experiment(config).run(["nearest", "rag4dmc"], [0.5, 0.5], sweeps=sweeps)
    once = Experiment(config).run(
        ["nearest", "rag4dmc"], [0.5], sweeps=[parse_sweep("n=2", config)]
    )
    assert found.records == once.records


def test_the_second_of_two_draws_is_the_first_of_the_next_seed(tmp_path: Path) -> None:
    second = Experiment(load_config(world(tmp_path / "a"))).draw(1).world
    other = Experiment(load_config(world(tmp_path / "b", seed=1))).draw(0).world
    assert (second.test, second.train) == (other.test, other.train)


def test_a_mask_file_is_drawn_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws must be 1 with a mask file"):
        load_config(world(tmp_path, mask="mask.csv", draws=2))
