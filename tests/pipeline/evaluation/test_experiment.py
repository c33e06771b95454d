"""Whole evaluations of coloured squares: every variant through the pipeline, by parts that are quick."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config.config import load_config
from pipeline.config.variants import ABLATIONS, TABLE
from pipeline.dataset.settings import INTERNAL
from pipeline.evaluation.changes import parse_sweep
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.report.curves import curves
from pipeline.evaluation.report.page import tables, write_page
from pipeline.evaluation.results.results import Results
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.evaluation.evaluated import world

EVERYTHING = [*TABLE, *ABLATIONS]


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
    assert used is not None and used.mode in ("fusion", "pseudo", "cross")


def test_copies_of_test_images_are_in_no_knowledge_base(results: Results, place: Path) -> None:
    draw = Experiment(load_config(place)).draw()
    test = set(draw.world.test)
    copies = {f"copy {n}" for n in range(2) if quick_worlds.rows(60, 0, 0)[n]["id"] in test}
    assert set(draw.world.excluded["others"]) == copies
    images = {draw.world.rows[row_id].image for row_id in test}
    for arm in draw.arms(["vanilla", "combined", "rag4dmc"]):
        job = draw.runs.job_of(arm)
        pairs = job.knowledge.checked().pairs
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_texts_or_images_alone_can_be_hidden_and_rates_given(tmp_path: Path) -> None:
    place = world(tmp_path, missing="text")
    found = Experiment(load_config(place)).run(["rag4dmc"], rates=[0.3, 0.6])
    assert found.rates == [0.3, 0.6]
    assert {r.missing for r in found.records if r.group == "direct"} == {"text"}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
