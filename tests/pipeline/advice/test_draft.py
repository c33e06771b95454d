"""A first config: what is found in a dataset, and that what is written runs."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.cli import app
from pipeline.advice.draft import draft, name_of
from pipeline.config.config import load_config
from pipeline.dataset.dataset import DatasetError
from pipeline.job import Job
from tests.pipeline.dataset.forms import small_files
from tests.pipeline.dataset.forms.form_writers import WRITERS, make_rows
from tests.worlds import CHECKPOINTS, SCENES, scene_rows, write_rows

MODELS = {
    "encoder": CHECKPOINTS / "encoder",
    "captioner": CHECKPOINTS / "captioner",
    "image_generator": CHECKPOINTS / "sdxl",
}


def init(*words: object) -> Result:
    given = [
        word for name, path in MODELS.items() for word in (f"--{name.replace('_', '-')}", path)
    ]
    return CliRunner().invoke(app, [str(word) for word in ("init", *words, *given)])


def kinds(rows: list[dict[str, Any]]) -> dict[str, int]:
    names = {
        (True, True): "complete",
        (True, False): "text",
        (False, True): "image",
        (False, False): "both",
    }
    found = Counter(names[bool(row["image"]), bool(row["text"])] for row in rows)
    return {name: found[name] for name in names.values()}


@pytest.mark.slow
@pytest.mark.parametrize("form", WRITERS)
def test_every_form_goes_from_init_to_a_run(form: str, tmp_path: Path) -> None:
    write, name, _ = WRITERS[form]
    rows = make_rows(name)
    (tmp_path / "data").mkdir()
    write(rows, tmp_path / "data")
    config = tmp_path / "config.yaml"
    answer = init(tmp_path / "data", "--output", config, "--json")
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["counts"] == kinds(rows)
    assert told["rows"] == len(rows)
    settings = load_config(config)
    assert settings.dataset.format == name
    assert settings.dataset.columns.model_dump(exclude={"extra"}) == told["columns"]
    assert "none" not in told["columns"].values()
    job = Job(settings)
    with job.lock():
        job.begin()
        job.build()
        summary = job.complete(limit=2)
    outcomes = summary["outcomes"]
    assert outcomes["observed"] == told["counts"]["complete"]
    assert outcomes["completed"] + outcomes["rejected"] == 2 + told["counts"]["both"]
    assert outcomes["failed"] == 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = scene_rows(34, 3, 2)
    cut = next(row["image"]["bytes"] for row in rows if row["image"])[:50]
    rows.append({"id": "cut", "image": {"bytes": cut, "path": None}, "text": "a hat"})
    write_rows(tmp_path / "my rows.parquet", rows)
    return tmp_path


def test_it_counts_what_is_missing_and_why_and_says_so_in_the_config(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    answer = init("my rows.parquet", "--external", f"flat={SCENES / 'external.parquet'}")
    assert answer.exit_code == 0, answer.output
    assert "wrote my-rows.yaml; next: rag4dmc inspect my-rows.yaml" in answer.stdout
    text = (data / "my-rows.yaml").read_text(encoding="utf-8")
    assert "# 40 rows: 34 complete, 3 without text, 3 without image." in text
    assert "#   without image: no image in the row (2), undecodable (1)" in text
    assert "passing through: ground" in text
    assert len(text.splitlines()) < 40
    config = load_config(data / "my-rows.yaml")
    assert (config.name, config.external[0].name) == ("my-rows", "flat")
    assert config.dataset.columns.model_dump() == {
        "id": "id",
        "image": "image",
        "text": "text",
        "extra": None,
    }


def test_a_run_reads_nothing_again_that_init_has_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data / "c.yaml"
    assert init(data / "my rows.parquet", "-o", config).exit_code == 0
    monkeypatch.setattr("pipeline.dataset.catalog.read", lambda *_: pytest.fail("was read again"))
    assert len(Job(load_config(config)).catalog) == 40


def test_it_overwrites_nothing_unless_forced(data: Path) -> None:
    config = data / "c.yaml"
    config.write_text("mine", encoding="utf-8")
    answer = init(data / "my rows.parquet", "-o", config)
    assert answer.exit_code == 2
    assert answer.stderr.strip() == f"rag4dmc: {config} stands already; --force replaces it"
    assert config.read_text(encoding="utf-8") == "mine"
    assert init(data / "my rows.parquet", "-o", config, "--force").exit_code == 0
    assert load_config(config).name == "c"


def test_columns_that_cannot_be_found_are_named(data: Path) -> None:
    table = pq.read_table(data / "my rows.parquet")
    names = {"id": "nr", "image": "blob", "text": "what it is"}
    pq.write_table(table.rename_columns([names.get(n, n) for n in table.column_names]), data / "n")
    (data / "n").rename(data / "strange.parquet")
    words = [word for role, name in names.items() for word in (f"--{role}", name)]
    answer = init(data / "strange.parquet", "-o", data / "c.yaml", "--json", *words)
    assert json.loads(answer.stdout)["columns"] == names
    assert yaml.safe_load((data / "c.yaml").read_text())["dataset"]["columns"] == names
    wrong = init(data / "strange.parquet", "-o", data / "d.yaml", "--text", "caption")
    assert wrong.exit_code == 2 and "there is no column 'caption'; there are nr" in wrong.stderr
    assert not (data / "d.yaml").exists()


def test_what_would_keep_a_run_from_being_of_use_is_said(tmp_path: Path) -> None:
    rows = scene_rows(3, 0, 0)
    write_rows(tmp_path / "twice.parquet", [*rows, rows[0]])
    told = draft(str(tmp_path / "twice.parquet"), tmp_path / "c.yaml")
    assert any("stands twice" in warning for warning in told.warnings)
    assert any("only 3 complete pairs" in warning for warning in told.warnings)
    assert any("nothing to complete" in warning for warning in told.warnings)
    assert load_config(tmp_path / "c.yaml").dataset.on_duplicate == "first"


def test_no_row_is_dropped_that_holds_what_another_lacks(tmp_path: Path) -> None:
    (whole,) = scene_rows(1, 0, 0)
    halves = [whole | {"text": None}, whole | {"image": None}]
    write_rows(tmp_path / "halves.parquet", [*scene_rows(3, 0, 0)[1:], *halves])
    with pytest.raises(DatasetError, match="row 2 and .* row 3, and each holds a half that"):
        draft(str(tmp_path / "halves.parquet"), tmp_path / "c.yaml")
    assert not (tmp_path / "c.yaml").exists()
    none = draft(str(tmp_path / "halves.parquet"), tmp_path / "c.yaml", columns={"id": "none"})
    assert (none.rows, none.counts["text"], none.counts["image"]) == (4, 1, 1)


def test_captions_that_come_late_are_the_text_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    members = [(f"{i:03d}.png", small_files.PNG + bytes([i % 256])) for i in range(270)]
    members += [("270.png", small_files.PNG), ("270.json", b'{"caption": "late"}')]
    with tarfile.open(tmp_path / "data" / "a.tar", "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    told = draft(str(tmp_path / "data"), tmp_path / "c.yaml")
    assert told.columns["text"] == "caption"
    assert (told.counts["complete"], told.counts["text"]) == (1, 270)
    assert Job(load_config(tmp_path / "c.yaml")).sources.dataset.columns.text == "caption"


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    answer = init(tmp_path / "gone", "-o", tmp_path / "c.yaml")
    assert answer.exit_code == 2 and "is not there" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_look_like_numbers_stay_names(data: Path) -> None:
    (data / "my rows.parquet").rename(data / "2024.parquet")
    pairs = data / "1e3.parquet"
    pairs.write_bytes((data / "2024.parquet").read_bytes())
    draft(str(data / "2024.parquet"), data / "2024.yaml", external=[str(pairs)])
    config = load_config(data / "2024.yaml")
    assert (config.name, config.external[0].name) == ("2024", "1e3")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/mine/", "mine"),
        ("rows.jsonl.gz", "rows"),
        ("s3://b/a b/*.tar", "a-b"),
        ("photos.v2.1", "photos.v2.1"),
        ("/", "run"),
        ("***", "run"),
    ],
)
def test_names_come_from_paths(path: str, name: str) -> None:
    assert name_of(path) == name
