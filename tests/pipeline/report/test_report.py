from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.report import project, write_report
from pipeline.report.charts import histogram
from pipeline.report.gallery import Figures, Sample
from tests.pipeline.report import report_rows
from tests.pipeline.report.report_rows import MANIFEST, SCRIPT, SUMMARY, row, rows


def example_image(identifier: str) -> bytes:
    return report_rows.encoded(int(identifier.split("/")[1]))


def embedded(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found.group(1))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "report" / "index.html"
    generator = np.random.default_rng(0)
    before = {"internal": generator.normal(size=(60, 8)), "photos": generator.normal(2, 1, (90, 8))}
    after = {"internal": before["internal"], "photos": before["photos"][:40] - 2}
    write_report(
        path,
        rows(60),
        SUMMARY,
        MANIFEST,
        example_image=example_image,
        projection=project(before, after),
    )
    return path


def test_every_row_is_counted_once_by_outcome():
    figures = Figures()
    for one in rows(60):
        figures.add(one)
    assert sum(figures.outcomes.values()) == 60
    assert figures.outcomes["observed", ""] == 18
    assert figures.outcomes["completed", "text"] == 18
    assert figures.outcomes["completed", "image"] == 12
    assert figures.outcomes["rejected", "image"] == 6
    assert figures.outcomes["failed", "text"] == 6
    assert figures.reasons["failed", "text", "out of memory"] == 6
    # Of four candidates each completed row has one invalid, one chosen, two others.
    assert len(figures.chosen["text", "score"]) == 18
    assert len(figures.others["text", "score"]) == 36
    assert figures.invalid["text", "loop"] == 18 + 4 * 6


def test_a_small_run_is_shown_whole_and_in_order():
    sample = Sample(20)
    for number in range(20):
        sample.add({"id": str(number), "status": "observed", "missing": None})
    assert [one["id"] for one in sample.rows()] == [str(number) for number in range(20)]


def test_a_large_run_keeps_the_best_the_worst_and_some_of_each_outcome():
    sample = Sample(80, seed=1)
    scores = np.random.default_rng(0).permutation(5000) / 5000
    for number, score in enumerate(scores):
        status = "failed" if number == 17 else "observed" if number % 7 == 0 else "completed"
        completion = {"score": score} if status == "completed" else None
        missing = None if status == "observed" else "text"
        sample.add(
            {"id": str(number), "status": status, "missing": missing, "completion": completion}
        )
    kept = sample.rows()
    assert len(kept) <= 80
    completed = [r for r in range(5000) if r % 7 and r != 17]
    ranked = sorted(completed, key=lambda r: scores[r])
    ids = {int(one["id"]) for one in kept}
    assert set(ranked[:10]) <= ids
    assert set(ranked[-10:]) <= ids
    assert 17 in ids
    assert sum(one["status"] == "observed" for one in kept) == 10


def test_the_page_needs_nothing_from_outside(page):
    text = page.read_text(encoding="utf-8")
    outside = re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', text)
    assert outside == []
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text


def test_text_of_the_rows_cannot_become_markup(page):
    text = page.read_text(encoding="utf-8")
    assert "<script>document" not in text
    assert text.count("<script") == text.count("</script>") == 2
    shown = {card["id"]: card for card in embedded(text)["cards"]}
    assert shown["row-00003"]["text"] == [SCRIPT]
    assert "harbour &amp; garden" in text


def test_cards_carry_halves_examples_and_every_candidate(page):
    data = embedded(page.read_text(encoding="utf-8"))
    assert [card["id"] for card in data["cards"]] == [f"row-{n:05d}" for n in range(60)]
    card, truth = data["cards"][15], list(rows(16))[15]
    assert data["images"][card["image"]].startswith("data:image/webp;base64,")
    assert data["images"][card["examples"][0]["image"]].startswith("data:image/webp;base64,")
    assert card["examples"][0]["source"] == "photos"
    assert card["score"] == pytest.approx(truth["completion"]["score"], abs=1e-4)
    assert len(card["candidates"]) == 4
    # More digits than a JavaScript number has.
    assert card["made"]["seed"] == str(truth["completion"]["seed"])
    # Seven pairs ground all rows: their pictures are stored once.
    assert sum(key.startswith("pair ") for key in data["images"]) == 7


def test_a_large_run_says_that_its_gallery_is_a_sample(tmp_path):
    path = tmp_path / "index.html"
    counts = write_report(path, rows(300), {"name": "many"}, sample=40)
    assert counts["rows"] == 300
    # Five kinds of row and two kinds of best and worst, an eighth of the sample each.
    assert counts["cards"] <= 45
    assert f"A sample of {counts['cards']} of 300 rows" in path.read_text(encoding="utf-8")


def test_a_run_without_rows_or_anything_known_still_has_a_page(tmp_path):
    path = tmp_path / "index.html"
    assert write_report(path, [], {})["rows"] == 0
    assert "Outcomes" in path.read_text(encoding="utf-8")


def test_rows_without_either_half_are_told(tmp_path):
    lost = row(8) | {"missing": None, "completion": None, "text": None}
    write_report(tmp_path / "index.html", [lost, row(0)], {})
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 without both halves" in text


def test_a_mapping_that_was_not_measured_says_which_is_used(tmp_path):
    mapping = {
        "chosen": {"image": "start", "text": "start"},
        "constant": {"image": True, "text": False},
        "scores": {"image": {}, "text": {}},
    }
    write_report(tmp_path / "index.html", rows(3), {}, MANIFEST | {"mapping": mapping})
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Too few pairs to compare models: start is used" in text
    assert "From image the mapping says nothing" in text
    assert "Five-fold" not in text


def test_all_pages_of_a_process_share_templates_that_are_compiled_once(tmp_path, monkeypatch):
    write_report(tmp_path / "one.html", rows(2), SUMMARY)
    monkeypatch.setattr("jinja2.Environment.compile", None)
    write_report(tmp_path / "other.html", rows(2), SUMMARY)


def test_the_page_is_replaced_whole(tmp_path):
    path = tmp_path / "index.html"
    write_report(path, rows(3), {"name": "first"})

    def broken():
        yield row(0)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write_report(path, broken(), {"name": "second"})
    assert "<h1>first</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


def test_lists_of_captions_and_unreadable_pictures_are_shown_as_they_are(tmp_path):
    several = row(0) | {"text": ["a red hat", "a hat"], "image": {"bytes": b"no image"}}
    write_report(tmp_path / "index.html", [several], {})
    (card,) = embedded((tmp_path / "index.html").read_text(encoding="utf-8"))["cards"]
    assert card["text"] == ["a red hat", "a hat"]
    assert "image" not in card


def test_the_networks_loss_is_drawn_over_its_epochs(tmp_path):
    losses = [1.9 * 0.98**epoch for epoch in range(120)]
    manifest = {**MANIFEST, "mapping": {**MANIFEST["mapping"], "losses": losses}}
    write_report(tmp_path / "page.html", rows(4), SUMMARY, manifest)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    figure = page.split("held-out loss over epochs</figcaption>")[1].split("</figure>")[0]
    assert "119: 0.1717" in figure and "0: 1.9" in figure
    assert figure.count("<circle") == 8
    assert figure.count("L") == 119


def test_the_projection_is_that_of_principal_components():
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(3)
    rows_ = generator.normal(size=(200, 6)) * np.array([5, 3, 1, 1, 1, 1])
    found = project({"internal": rows_[:120], "web": rows_[120:]}, {"internal": rows_[:120]})
    reference = PCA(2).fit(rows_)
    expected = reference.transform(rows_)
    got = np.concatenate([found.before["internal"], found.before["web"]])
    assert np.abs(got) == pytest.approx(np.abs(expected), abs=1e-9)
    assert found.explained == pytest.approx(reference.explained_variance_ratio_.sum())
    assert found.after["internal"] == pytest.approx(found.before["internal"])


def test_a_large_knowledge_base_is_sampled_by_source(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(9000, 4)).astype(np.float16))
    mapped = np.load(path, mmap_mode="r")
    found = project({"internal": mapped[:3000], "web": mapped}, {}, points=1000)
    assert (len(found.before["internal"]), len(found.before["web"])) == (250, 750)
    assert (found.total_before, found.total_after) == (12000, 0)


def test_projecting_nothing_or_different_widths_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        project({}, {})
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        project({"a": np.ones((5, 3)), "b": np.ones((5, 4))}, {})


def test_a_histogram_leaves_out_what_is_not_a_number():
    drawn = histogram("score", [0.1, 0.2, 0.2, float("nan")], [0.4])
    assert drawn is not None
    assert (drawn.count, drawn.median, drawn.low, drawn.high) == (3, 0.2, "0.10", "0.40")
    assert drawn.chosen.count("M") == 2
    assert histogram("score", [float("nan")], []) is None


def test_texts_of_any_length_and_number_leave_the_page_small(tmp_path):
    long = "a long story " * 20_000
    rows = []
    for one in report_rows.rows(40):
        completion = one["completion"]
        if completion:
            completion = {**completion, "prompt": long}
            completion["candidates"] = [
                {**each, "text": long, "notes": [long]} for each in completion["candidates"]
            ]
            completion["examples"] = [{**each, "text": long} for each in completion["examples"]]
        rows.append({**one, "text": [long] * 50, "reason": long, "completion": completion})
    plain, full = (
        write_report(tmp_path / f"{name}.html", given, {})["bytes"]
        for name, given in (("plain", report_rows.rows(40)), ("full", rows))
    )
    assert full < plain + 40 * 20 * 3000
    (text, *_) = embedded((tmp_path / "full.html").read_text())["cards"][0]["text"]
    assert text.startswith("a long story") and text.endswith("… (260,000 characters)")
