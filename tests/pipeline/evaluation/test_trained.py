"""What is handed to the fine-tuning, and what is drawn of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.config import load_config
from pipeline.evaluation.changes import parse_sweep
from pipeline.evaluation.draw import Draw
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.measures.downstream import Downstream
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.report.curves import curves
from pipeline.evaluation.report.page import write_page
from pipeline.evaluation.results.ranked import Ranks
from pipeline.evaluation.results.results import Results
from tests.calls import LOG, calls
from tests.pipeline.evaluation.evaluated import world
from tests.worlds import CHECKPOINTS

# A draw, what each of its arms trained on, by rate and label, and the results.
Trained = tuple[Draw, dict[tuple[float, str], Pairs], Results]


pytestmark = pytest.mark.slow


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


def test_heads_are_one_more_thing_that_learns_from_what_was_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path))
    judge = {"kind": "tests.quick_parts:NotedEncoder"}
    place = world(tmp_path, rates=[0.4, 0.7], judge=judge, downstream="heads")
    experiment = Experiment(load_config(place))
    results = experiment.run(["drop", "rag4dmc", "complete"], seeds=2)
    seen = [told for _, told in calls(tmp_path) if told.startswith(("image ", "text "))]
    assert seen and len(seen) == len(set(seen)), "a picture or text was encoded twice"
    assert results.measure == "mean recall"
    draw = experiment.draw()
    for rate in (0.4, 0.7):
        rows = {
            label: results.value(rate, label, group="rows", measure="trained on")
            for label in ("drop", "rag4dmc", "complete")
        }
        counts = {label: one.value for label, one in rows.items() if one is not None}
        assert counts["complete"] == counts["rag4dmc"] == len(draw.world.train)
        assert counts["drop"] == len(draw.world.train) - len(draw.world.masks([rate])[0].hidden)
        mean = results.mean_recall(rate, "rag4dmc")
        every = [
            record.value
            for record in results.records
            if (record.rate, record.label, record.seed) == (rate, "rag4dmc", 0)
            and record.direction is not None
        ]
        assert mean is not None and len(every) == 6
        assert mean[0] == pytest.approx(sum(every) / 6)
        told = results.value(rate, "rag4dmc", group="downstream", measure="mean recall", seed=0)
        assert told is not None and told.value == pytest.approx(mean[0])
    page = write_page(results, tmp_path / "index.html").read_text()
    assert "Orderings by mean recall" in page and "Orderings by mean R@1" in page
    assert "projections to 256 dimensions learned on the judge's frozen towers" in page
    assert [chart.label for chart in curves(results)] == ["mean recall over the missing rate"]
