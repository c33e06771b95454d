"""What follows from ranks and rows: gains, the share of the way, and how sure both are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.check.intervals import interval
from pipeline.evaluation.report.downstream import comparison_table, downstream_table
from pipeline.evaluation.report.page import markdown, warnings
from pipeline.evaluation.results.claims import paper_way
from pipeline.evaluation.results.ranked import Ranks
from pipeline.evaluation.results.records import Record
from pipeline.evaluation.results.results import Results


def ids(count: int, first: int = 0) -> list[str]:
    return [f"row {number}" for number in range(first, first + count)]


def measured(gap: float, pairs: int = 400) -> Results:
    """Made-up ranks of test pairs: complete is right by `gap` more often than drop."""
    results = Results({"name": "made up"})
    generator = np.random.default_rng(0)
    for label, share in (("drop", 0.4), ("rag4dmc", 0.4 + 0.8 * gap), ("complete", 0.4 + gap)):
        wrong = [generator.permutation(pairs) >= round(share * pairs) for _ in range(10)]
        ranks = np.array(wrong, dtype=int).reshape(2, 5, pairs)
        results.add_ranks(0.7, label, Ranks(ranks[0], ranks[1]), ids(pairs), rows=100)
    return results


def test_the_way_and_the_orderings_follow_from_the_ranks() -> None:
    results = measured(0.2)
    way = results.way(0.7, "rag4dmc")
    assert way is not None and way.over_draws is None
    assert way.over_seeds.mean == pytest.approx(0.8)
    assert way.over_rows.mean == pytest.approx(0.8)
    assert results.certain(0.7)
    found = {(one.better, one.worse): one for one in results.comparisons()}
    helps = found["rag4dmc", "drop"]
    assert helps.gain.over_seeds.mean == pytest.approx(0.16)
    assert helps.gain.over_rows.mean == pytest.approx(0.16)
    assert helps.gain.over_rows.half > helps.gain.over_seeds.half
    assert helps.holds == "yes"
    assert replace(helps, gain=results.gain(0.7, "drop", "complete")).holds == "reversed"
    recall = results.recall(0.7, "drop", "image to text", 1)
    assert recall is not None and recall.mean == pytest.approx(0.4)
    table = downstream_table(results, 0.7)
    assert table is not None and "do not count" not in table.note
    assert "0.200 ± 0.000 over seeds and ± 0.0" in table.note
    cells = dict(zip(table.headings, table.rows[1], strict=True))
    assert cells["of the way ± over seeds"] == "80% ± 0%"
    assert cells["± over test pairs"] == f"± {way.over_rows.half:.0%}" != "± 0%"
    assert cells["paper"] == "84%"
    assert not warnings(results)


def test_the_way_over_test_pairs_is_a_ratio_of_means_over_them() -> None:
    results = measured(0.2)
    found = results.way(0.7, "rag4dmc")
    assert found is not None
    ranked = [results.ranked(0.7, name) for name in ("drop", "rag4dmc", "complete")]
    hits = [one.hits().mean(axis=0) for one in ranked if one is not None]
    generator, shares = np.random.default_rng(1), []
    for _ in range(4000):
        chosen = generator.integers(0, 400, 400)
        drop, own, complete = (one[chosen].mean() for one in hits)
        shares.append((own - drop) / (complete - drop))
    low, high = np.percentile(shares, [2.5, 97.5])
    assert found.over_rows.half == pytest.approx((high - low) / 2, rel=0.1)


@pytest.mark.parametrize(("gap", "pairs"), [(0.0, 400), (0.2, 40)])
def test_what_may_be_luck_of_seeds_or_of_test_pairs_does_not_count(gap: float, pairs: int) -> None:
    results = measured(gap, pairs)
    span = results.span(0.7)
    assert span is not None
    # However sure over seeds: with few test pairs another test set may say otherwise.
    assert span.over_seeds.half == pytest.approx(0)
    assert span.over_seeds.mean == pytest.approx(gap) and not span.exceeds(3)
    assert not results.certain(0.7)
    assert results.way(0.7, "rag4dmc") is None
    table = downstream_table(results, 0.7)
    assert table is not None and "these figures do not count" in table.note
    assert table.rows[1][-3:] == ("–", "–", "84%")
    assert {one.holds for one in results.comparisons()} == {"does not count"}
    answer = results.answer()
    assert answer["certain"] == {"0.7": False}
    assert answer["way"] == {"0.7": {"drop": None, "rag4dmc": None, "complete": None}}
    assert {one["holds"] for one in answer["comparisons"]} == {"does not count"}


def test_without_drop_or_complete_nothing_counts() -> None:
    results = Results({"downstream": {}, "judge_selects": True})
    ranks = np.zeros((2, 10), int)
    for label in ("direct", "rag4dmc"):
        results.add_ranks(0.7, label, Ranks(ranks, ranks), ids(10), rows=5)
    assert [one.holds for one in results.comparisons()] == ["does not count"]
    told = warnings(Results({"judge_selects": True}))
    assert len(told) == 1 and "judged by the encoder that selected them" in told[0]
    results.facts["downstream"] = {"seeds": 2}
    told = warnings(results)
    assert len(told) == 2 and "complete and drop were not both measured" in told[1]
    assert all(f"**{one}**" in markdown(results) for one in told)


def test_a_gain_that_another_test_set_might_not_have_says_so() -> None:
    results = Results({})
    right, wrong = np.zeros((5, 100), dtype=int), np.ones((5, 100), dtype=int)
    better = wrong.copy()
    better[:, :2] = 0
    for label, ranks in (("rag4dmc", better), ("drop", wrong), ("complete", right)):
        results.add_ranks(0.7, label, Ranks(ranks, ranks), ids(100), rows=100)
    found = {(one.better, one.worse): one for one in results.comparisons()}["rag4dmc", "drop"]
    assert found.gain.over_seeds.half == 0
    assert pytest.approx(found.gain.over_rows.mean) == 0.02 and found.gain.over_rows.low < 0
    assert found.holds == "yes, on these pairs"
    back = replace(found, gain=results.gain(0.7, "drop", "rag4dmc"))
    assert back.holds == "reversed, on these pairs"


def drawn(draws: int, sizes: Sequence[int], first: Sequence[int]) -> tuple[Results, dict]:
    """Random ranks of so many draws, and the hits of each, in the mean of both directions."""
    results = Results({"draws": draws})
    generator = np.random.default_rng(0)
    hits = {}
    for draw in range(draws):
        for label in ("direct", "rag4dmc"):
            ranks = generator.integers(0, 3, (2, 5, sizes[draw]))
            pairs = ids(sizes[draw], first[draw])
            rows = 10 * (draw + 1)
            results.add_ranks(0.7, label, Ranks(*ranks), pairs, rows=rows, draw=draw)
            hits[draw, label] = (ranks == 0).mean(axis=0)
    return results, hits


def test_test_pairs_of_several_draws_count_together() -> None:
    results, hits = drawn(2, sizes=(40, 60), first=(0, 40))
    own = results.mean_recall(0.7, "rag4dmc")
    assert own is not None
    together = np.concatenate([hits[0, "rag4dmc"], hits[1, "rag4dmc"]], axis=1)
    np.testing.assert_allclose(own, together.mean(axis=1))
    by_draw = results.draw_gains(0.7, "rag4dmc", "direct")
    for draw in range(2):
        gain = hits[draw, "rag4dmc"].mean() - hits[draw, "direct"].mean()
        assert by_draw[draw] == pytest.approx(gain)
    compared = results.gain(0.7, "rag4dmc", "direct")
    assert compared is not None and compared.over_draws is None
    assert compared.over_rows.mean == pytest.approx(0.4 * by_draw[0] + 0.6 * by_draw[1])
    table = comparison_table(results)
    assert table is not None and table.headings[-3:] == ("over test pairs", "by draw", "holds")
    trained = results.value(0.7, "rag4dmc", measure="trained on")
    assert trained is not None and trained.value == 15


def test_from_three_draws_on_there_is_an_interval_over_them() -> None:
    results, _ = drawn(3, sizes=(50, 50, 50), first=(0, 30, 60))
    gains = list(results.draw_gains(0.7, "rag4dmc", "direct").values())
    found = results.gain(0.7, "rag4dmc", "direct")
    assert found is not None and found.over_draws == interval(gains)
    assert found.over_draws.mean == pytest.approx(found.over_rows.mean)
    table = comparison_table(results)
    assert table is not None
    cells = dict(zip(table.headings, table.rows[0], strict=True))
    assert cells["over draws"] == f"{np.mean(gains):+.3f} ± {interval(gains).half:.3f}"
    assert "Over draws" in table.note
    # The printed draws of completing against dropping, as an example of what five say.
    assert str(interval([0.041, 0.010, -0.008, 0.021, 0.030])) == "0.019 ± 0.023"


def test_a_test_pair_of_two_draws_counts_as_one() -> None:
    once, twice = Results({}), Results({"draws": 2})
    generator = np.random.default_rng(0)
    for label in ("direct", "rag4dmc"):
        ranks = Ranks(*generator.integers(0, 3, (2, 5, 50)))
        once.add_ranks(0.7, label, ranks, ids(50), rows=10)
        for draw in range(2):
            twice.add_ranks(0.7, label, ranks, ids(50), rows=10, draw=draw)
    found, same = (one.gain(0.7, "rag4dmc", "direct") for one in (once, twice))
    assert found is not None and same is not None
    assert same.over_rows.half == pytest.approx(found.over_rows.half)


@pytest.mark.parametrize("group", ["direct", "retrieval"])
def test_a_row_of_several_draws_counts_as_one(group: str) -> None:
    once, twice = Results({}), Results({"draws": 2})
    generator = np.random.default_rng(0)
    for label in ("direct", "nearest"):
        rows = dict(zip(ids(50), generator.normal(size=50), strict=True))
        mean = interval(list(rows.values()))
        figure = Record(0.7, label, group, "cosine", mean.mean, mean.half, missing="text")
        once.add(figure, rows)
        for draw in range(2):
            twice.add(replace(figure, draw=draw), rows)
    was, pooled = (one.value(0.7, "direct", measure="cosine") for one in (once, twice))
    assert was is not None and pooled is not None
    assert (pooled.value, pooled.half) == (pytest.approx(was.value), pytest.approx(was.half))
    told = {one["label"]: one for one in twice.answer()["pooled"]}
    assert told["direct"]["half"] == pooled.half and told["direct"]["draw"] == [0, 1]
    if group == "direct":
        gains = [
            one.direct_gain(0.7, "direct", "nearest", "text", "cosine") for one in (once, twice)
        ]
        assert gains[0] is not None and gains[1] is not None
        assert gains[1].half == pytest.approx(gains[0].half)


def test_rows_of_their_own_make_a_figure_of_two_draws_surer() -> None:
    results = Results({"draws": 2})
    values = np.random.default_rng(0).normal(size=100)
    for draw in range(2):
        part = values[50 * draw : 50 * (draw + 1)]
        figure = Record(0.7, "direct", "direct", "cosine", part.mean(), missing="text", draw=draw)
        results.add(figure, dict(zip(ids(50, 50 * draw), part, strict=True)))
    pooled = results.value(0.7, "direct", measure="cosine")
    assert pooled is not None
    found = interval(values)
    assert (pooled.value, pooled.half) == (pytest.approx(found.mean), pytest.approx(found.half))


def test_a_figure_of_a_draw_is_not_counted_twice() -> None:
    results = measured(0.2)
    figure = Record(0.7, "direct", "direct", "cosine", 0.5, missing="text")
    results.add(figure)
    with pytest.raises(ValueError, match="draw 0 has this figure already"):
        results.add(figure)
    with pytest.raises(ValueError, match="draw 0 has been ranked already"):
        results.add_ranks(0.7, "drop", Ranks(np.zeros((2, 1)), np.zeros((2, 1))), ["a"], rows=1)


def test_the_papers_way_is_what_its_text_says() -> None:
    way = paper_way()
    assert way["rag4dmc"] == pytest.approx(0.84, abs=0.005)
    assert way["drop"] == 0 and way["complete"] == 1


def test_records_of_rows_stand_beside_those_of_seeds() -> None:
    results = measured(0.2)
    trained = results.value(0.7, "drop", group="rows")
    assert trained == Record(0.7, "drop", "rows", "trained on", 100)
    table = results.table()
    assert table.filter(table["group"].to_numpy() == "downstream").num_rows == 3 * 5 * (2 * 3 + 2)
