"""The report in a real headless browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.ledger.review import Verdict, read_marks
from pipeline.report import write_report
from tests.pipeline.report.report_rows import MANIFEST, SCRIPT, SUMMARY, rows
from tests.pipeline.report.test_report import example_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    write_report(path, rows(120), SUMMARY, MANIFEST, example_image=example_image)
    return path


@pytest.fixture
def opened(browser, path, request) -> Iterator:
    context = browser.new_context(**getattr(request, "param", {}))
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: sent.url.startswith("http") and complaints.append(sent.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".card")
    yield page
    assert complaints == []
    context.close()


# A card out of view is not laid out (content-visibility), and what is not laid out has no inner
# text: cards are read by their text content.
def ids(page) -> list[str]:
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.id)")


def test_it_renders_cards_with_pictures_that_decode(opened):
    assert opened.title() == "harbour & garden · completion report"
    assert opened.locator(".card").count() == 36
    broken = opened.locator("img").evaluate_all(
        "async all => { for (const one of all) { one.loading = 'eager'; await one.decode(); }"
        " return all.filter(one => !one.naturalWidth).length; }"
    )
    assert broken == 0


def test_a_caption_of_markup_stays_text(opened):
    opened.fill("[name=search]", "broken")
    assert ids(opened) == ["row-00003"]
    assert opened.locator(".card .half.made p").text_content() == SCRIPT
    assert opened.title() == "harbour & garden · completion report"


def test_it_filters_and_sorts(opened):
    opened.select_option("[name=status]", "completed")
    opened.select_option("[name=missing]", "image")
    assert opened.locator("#count").inner_text() == "24 of 120 rows"
    worst = opened.locator(".score").all_text_contents()
    assert worst == sorted(worst, key=float)
    opened.select_option("[name=sort]", "best")
    best = opened.locator(".score").all_text_contents()
    assert best == sorted(best, key=float, reverse=True)
    assert opened.locator(".badge").first.text_content() == "generated image"
    opened.fill("[name=search]", "no such words")
    assert opened.locator(".empty").inner_text() == "No row fits these filters."


def test_the_worst_texts_and_the_worst_images_both_come_first(opened):
    opened.select_option("[name=status]", "completed")
    badges = opened.locator(".badge").all_text_contents()[:12]
    assert {badges.count("generated image"), badges.count("generated text")} <= {5, 6, 7}


def test_more_rows_come_on_demand(opened):
    while opened.locator("#more").is_visible():
        opened.click("#more")
    assert len(set(ids(opened))) == 120


def test_every_candidate_shows_its_parts_and_its_fault(opened):
    opened.select_option("[name=missing]", "text")
    opened.select_option("[name=status]", "completed")
    card = opened.locator(".card").first
    card.locator("summary").click()
    lines = card.locator("tbody tr")
    assert lines.count() == 4
    assert card.locator("tr.win").count() == 1
    assert "loop" in card.locator("tr.bad").text_content()
    assert "cc-by-4.0" in card.locator(".ground").text_content().lower()


def test_marks_are_made_by_keyboard_survive_and_are_exported(opened, tmp_path):
    opened.select_option("[name=status]", "completed")
    opened.locator("h1").click()
    opened.keyboard.press("j")
    first, second = ids(opened)[:2]
    opened.keyboard.press("a")
    opened.keyboard.press("j")
    opened.keyboard.press("r")
    assert opened.locator("#count").inner_text().endswith("1 accepted, 1 rejected")
    opened.reload()
    opened.select_option("[name=mark]", "reject")
    assert ids(opened) == [second]
    with opened.expect_download() as download:
        opened.click("#export")
    download.value.save_as(tmp_path / "marks.json")
    written = json.loads((tmp_path / "marks.json").read_text())
    assert (written["format"], written["version"]) == ("rag4dmc-marks", 1)
    assert (written["run"], written["run_id"]) == ("harbour & garden", "run-1")
    assert {mark["id"]: mark["mark"] for mark in written["marks"]} == {
        first: "accept",
        second: "reject",
    }
    by_id = {row["id"]: row["completion"] for row in rows(120)}
    for mark in written["marks"]:
        made = by_id[mark["id"]]
        assert (mark["attempt"], mark["run_id"]) == (made["attempt"], made["run_id"])
        assert int(mark["seed"]) == made["seed"]
    read = read_marks(tmp_path / "marks.json", "harbour & garden")
    assert [mark.id for mark in read.marks] == [first, second]


def test_an_earlier_review_shows_and_can_be_overruled(browser, tmp_path):
    made = [row for row in rows(40) if row["status"] == "completed"]
    names = [row["id"] for row in made[:3]]

    def verdict(row, mark, attempt):
        return Verdict(mark, row["missing"], attempt, "content", "run-1")

    verdicts = {
        names[0]: verdict(made[0], "accept", 1),
        names[1]: verdict(made[1], "reject", 1),
        names[2]: verdict(made[2], "reject", 0),
    }
    write_report(tmp_path / "index.html", rows(40), SUMMARY, MANIFEST, verdicts=verdicts)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    told = "Reviewed: 1 accepted, 1 rejected and not yet generated again, 1 generated again"
    assert told in page.locator("#outcomes").inner_text()
    page.select_option("[name=mark]", "accept")
    assert ids(page) == [names[0]]
    page.select_option("[name=mark]", "redone")
    assert ids(page) == [names[2]]
    page.select_option("[name=mark]", "reject")
    assert ids(page) == [names[1]]
    assert "the next run generates it again" in page.locator(".card").text_content()
    assert page.locator("#export").is_disabled()
    page.locator(".card .yes").click()
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "marks.json")
    (mark,) = read_marks(tmp_path / "marks.json", "harbour & garden").marks
    assert (mark.id, mark.mark) == (names[1], "accept")
    page.close()


def test_a_mark_is_taken_back(opened):
    opened.select_option("[name=status]", "completed")
    button = opened.locator(".card .no").first
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert opened.locator("#export").is_disabled()


@pytest.mark.parametrize(
    "opened", [{"viewport": {"width": 360, "height": 740}, "has_touch": True}], indirect=True
)
def test_nothing_is_wider_than_a_phone(opened):
    for summary in opened.locator("summary").all()[:3]:
        summary.click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(
    "opened", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True
)
def test_text_stands_out_from_its_ground_in_both_modes(opened):
    contrasts = opened.evaluate(
        """() => {
          const light = (colour) => {
            const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
              .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const ground = (element) => {
            for (let at = element; at; at = at.parentElement) {
              const colour = getComputedStyle(at).backgroundColor;
              if (!/, 0\\)|transparent/.test(colour)) return colour;
            }
          };
          return [...document.querySelectorAll(
            "h1, h2, p, td, th, .badge, .ground small, summary, .tile span, label, button:enabled"
          )].filter((element) => element.innerText).map((element) => {
            const pair = [light(getComputedStyle(element).color), light(ground(element))].sort();
            return [(pair[1] + 0.05) / (pair[0] + 0.05), element.className + ": " + element.innerText];
          });
        }"""
    )
    assert len(contrasts) > 100
    low = [(round(value, 2), name[:60]) for value, name in contrasts if value < 4.5]
    assert low == []
