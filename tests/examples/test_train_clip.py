"""The worked example of training on an export: what its options do, and that it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from examples.train_clip import clip_loss, row_weights
from pipeline.dataset.schema import completed_schema
from pipeline.export.export import export
from pipeline.export.settings import ExportSettings
from tests.worlds import CHECKPOINTS, SCENES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of the example, of which a third says that its text was generated."""
    folder = tmp_path_factory.mktemp("export")
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(ds.dataset(SCENES / "target.parquet").head(120).to_pylist()):
        made = number % 3 == 0
        rows.append(
            {
                "id": row["id"],
                "image": row["image"],
                "text": row["text"],
                "status": "completed" if made else "observed",
                "missing": "text" if made else None,
                "completion": {"score": 0.5, "generator": "blip2"} if made else None,
            }
        )
    table = pa.Table.from_pylist(rows, schema=completed_schema(text_is_list=False))
    pq.write_table(table, folder / "part-000001.parquet")
    completed = ds.dataset([str(folder / "part-000001.parquet")], schema=table.schema)
    export(completed, folder / "out", ExportSettings())
    return folder / "out"


def train(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/train_clip.py", *words]
    root = SCENES.parents[1]
    return subprocess.run(
        [str(word) for word in command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


def test_it_trains_on_an_export_and_what_it_saves_can_be_loaded(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    words = ("--model", CHECKPOINTS / "encoder", "--epochs", 2, "--output", tmp_path / "tuned")
    answer = train(exported, *words, "--learning-rate", "3e-4", "--generated-weight", 0.5)
    assert answer.returncode == 0, answer.stderr
    first = re.match(
        r"training on (\d+) observed and 40 generated .* 0\.5; .* (\d+)", answer.stdout
    )
    assert first is not None and int(first[1]) + int(first[2]) == 80
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", answer.stdout)]
    assert losses[1] < losses[0]
    assert len(re.findall(r"recall (before|after): image to text @1 [01]\.", answer.stdout)) == 2
    tuned = open_clip.create_model(f"local-dir:{tmp_path / 'tuned'}").state_dict()
    original = open_clip.create_model(f"local-dir:{CHECKPOINTS / 'encoder'}").state_dict()
    assert tuned.keys() == original.keys()
    assert any(not torch.equal(tuned[name], original[name]) for name in tuned)


def test_generated_rows_can_be_left_out(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    words = ("--model", CHECKPOINTS / "encoder", "--epochs", 0, "--only", "observed")
    answer = train(exported, *words)
    assert answer.returncode == 0, answer.stderr
    assert " and 0 generated rows" in answer.stdout


def test_a_folder_that_is_no_export_is_told(tmp_path: Path) -> None:
    answer = train(tmp_path)
    assert answer.returncode == 2 and "first: rag4dmc export CONFIG" in answer.stderr


def embeddings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, count, 5, generator=generator, dtype=torch.float64)
    images, texts = torch.nn.functional.normalize(drawn, dim=-1)
    return images, texts


def test_the_loss_is_each_rows_own_cross_entropy_by_its_weight() -> None:
    images, texts = embeddings(4)
    weights = row_weights(["observed", "completed", "completed", "observed"], 0.25).double()
    assert weights.tolist() == [1, 0.25, 0.25, 1]
    scores = 7.0 * images.numpy() @ texts.numpy().T
    own = []
    for row in range(4):
        to_text = -np.log(np.exp(scores[row, row]) / np.exp(scores[row]).sum())
        to_image = -np.log(np.exp(scores[row, row]) / np.exp(scores[:, row]).sum())
        own.append((to_text + to_image) / 2)
    expected = np.average(own, weights=weights.numpy())
    loss = clip_loss(images, texts, torch.tensor(7.0, dtype=torch.float64), weights)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_with_equal_weights_it_is_the_loss_of_open_clip() -> None:
    images, texts = embeddings(6)
    scale = torch.tensor(3.0, dtype=torch.float64)
    expected = open_clip.ClipLoss()(images, texts, scale)
    assert clip_loss(images, texts, scale, torch.ones(6)).item() == pytest.approx(expected.item())
