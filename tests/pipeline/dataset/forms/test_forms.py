"""The contract of all forms: the same rows in, the same batches out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.dataset import Dataset, DatasetError, DatasetSettings
from tests.pipeline.dataset.forms.form_writers import WRITERS, make_rows
from tests.pipeline.dataset.forms.small_files import read


@pytest.fixture(scope="module", params=WRITERS, ids=str)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    write, name, reason = WRITERS[request.param]
    folder = tmp_path_factory.mktemp("data")
    rows = make_rows(name)
    write(rows, folder)
    return Dataset.open(DatasetSettings(path=str(folder)), folder), rows, name, reason


def test_the_form_and_the_columns_are_found(form) -> None:
    dataset, _, name, _ = form
    assert dataset.format == name
    assert dataset.has_id
    assert dataset.text_is_list == (name == "coco")
    assert "label" in dataset.extra_schema.names


def test_rows_come_out_as_they_went_in(form) -> None:
    dataset, rows, _, reason = form
    found = read(dataset)
    assert [r["id"] for r in found] == [r["id"] for r in rows]
    assert [r["image"]["bytes"] for r in found] == [r["image"] for r in rows]
    assert [r["image_reason"] for r in found] == [
        reason if r["image"] is None else None for r in rows
    ]
    assert [r["text"] for r in found] == [[r["text"]] if r["text"] else [] for r in rows]
    assert [r["text_reason"] for r in found] == [
        None if r["text"] else "no text in the row" for r in rows
    ]
    assert [r["extra"]["label"] for r in found] == [r["label"] for r in rows]


def test_batches_have_one_schema_and_positions_that_count_up(form) -> None:
    dataset, _, _, _ = form
    for file in dataset.files:
        batches = list(dataset.batches(file))
        assert all(batch.schema == dataset.schema for batch in batches)
        assert all(batch.num_rows <= 256 for batch in batches)
        positions = [p for batch in batches for p in batch["position"].to_pylist()]
        assert positions == list(range(len(positions)))


def test_named_rows_are_those_of_the_batches_in_the_order_asked_for(form) -> None:
    dataset, _, _, _ = form
    generator = np.random.default_rng(0)
    for file in dataset.files:
        rows = [r for b in dataset.batches(file) for r in b.to_pylist()]
        if not rows:
            continue
        asked = generator.permutation(len(rows))[:40].tolist()
        asked.append(asked[0])
        assert dataset.fetch(file, asked).to_pylist() == [rows[i] for i in asked]
        assert dataset.fetch(file, []).num_rows == 0
        with pytest.raises(DatasetError, match="has no row"):
            dataset.fetch(file, [len(rows)])


def test_versions_stay_until_something_changes(form) -> None:
    dataset, _, _, _ = form
    again = Dataset.open(dataset.settings, Path("/"))
    assert dataset.files == again.files
    assert len({file.name for file in again.files}) == len(again.files)
