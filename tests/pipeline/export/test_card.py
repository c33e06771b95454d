"""The dataset card of an export: what is generated, by what, from whose pairs."""

from __future__ import annotations

import statistics
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from pipeline.export.card import card
from pipeline.export.export import export
from pipeline.export.formats.base import KEPT_FORMATS
from pipeline.export.settings import ExportSettings
from pipeline.export.tally import Tally
from tests.pipeline.export.completed_rows import (
    COUNT,
)


def test_it_says_what_is_generated_by_what_and_from_whose_pairs(
    completed: ds.Dataset, tmp_path: Path
) -> None:
    export(
        completed,
        tmp_path / "out",
        ExportSettings(min_score={"text": 0.01, "image": 0.01}),
        name="my photos",
    )
    text = (tmp_path / "out" / "README.md").read_text()
    texts = [n for n in range(COUNT) if n % 6 == 2 and n >= 10]
    images = [n for n in range(COUNT) if n % 6 == 3 and n >= 10]
    assert "# my photos, completed" in text
    assert f"| completed | text | {len(texts)} |" in text
    assert f"| completed | image | {len(images)} |" in text
    assert f"| web | CC-BY-4.0 | {len(texts) + len(images)} |" in text
    assert f"| blip2 | tiny\\|&lt;b&gt;model&lt;/b&gt; | 0123abcd | {len(texts)} |" in text
    assert f"| {statistics.median(texts) / 1000:.3f} |" in text
    assert "of the completed texts those with a score of 0.01 or more" in text
    assert "41 failed" in text


def test_names_from_outside_stay_text(completed: ds.Dataset, tmp_path: Path) -> None:
    export(completed, tmp_path / "out", ExportSettings(), name="<script>alert(1)</script>")
    text = (tmp_path / "out" / "README.md").read_text()
    body = text.split("---", 2)[2]
    assert "<script>" not in body
    assert "<b>" not in body
    assert "tiny\\|&lt;b&gt;model" in body


@pytest.mark.parametrize("format", ["parquet", "webdataset", "imagefolder"])
def test_its_code_runs(completed: ds.Dataset, tmp_path: Path, format: str) -> None:
    if format == "webdataset":
        pytest.importorskip("webdataset")
    export(completed, tmp_path / "out", ExportSettings(format=format))
    text = (tmp_path / "out" / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    found: dict = {}
    exec(code, found)  # noqa: S102  the card's own lines
    assert len(list(found["observed"])) == sum(n % 6 < 2 for n in range(COUNT))


def test_a_licence_of_its_own_for_each_pair_leaves_the_card_readable() -> None:
    tally = Tally()
    tally.rows, tally.missing["text"], tally.grounded["text"] = 3000, 3000, 3000
    tally.made["text", "blip2", "tiny", "1"] = 3000
    for number in range(3000):
        tally.sources["web", f"by author {number}, " + "x" * 5000] += 1 + (number == 7)
    text = card("many", ExportSettings(), tally, "usage")
    assert len(text) < 30_000 and "| web | by author 7, xxx" in text
    assert "| 2,950 more sources or licences | see the rows | 2,950 |" in text


@pytest.mark.parametrize("format", ["webdataset", "imagefolder", "llava", "open_clip"])
def test_it_says_what_a_layout_holds_otherwise_than_it_came(
    completed: ds.Dataset, tmp_path: Path, format: str
) -> None:
    export(completed, tmp_path / "out", ExportSettings(format=format))
    text = (tmp_path / "out" / "README.md").read_text()
    kept = "JPEG, PNG and WebP" if format == "webdataset" else KEPT_FORMATS
    assert f"Images in other formats than {kept} became PNG: 8-bit RGB" in text
    assert ("(NaN, the infinities) is null" in text) == (format in ("webdataset", "llava"))
