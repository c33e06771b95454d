"""The training loop: what a resumed run learns, what a stop leaves behind."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.scenes.training.loop import Schedule, train


def loss(model: torch.nn.Module, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
    """Fit a line to noisy points, with dropout-like noise from torch as well."""
    x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))
    target = x.sum(1, keepdim=True) + 0.01 * torch.randn(8, 1)
    return (model(x) - target).square().mean(), {}


def run(folder: Path, steps: int, **more: Any) -> torch.nn.Module:
    """Train the line for some steps of twelve."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    schedule = Schedule(steps, 0.1, warmup=2, average=0.5)
    given: dict[str, Any] = {"loss": loss, "export": lambda model: None, **more}
    how = {key: given[key] for key in ("batch", "device", "workers") if key in given}
    return train("line", model, given["loss"], schedule, folder, 7, given["export"], **how)


def prepare(rng: np.random.Generator) -> dict[str, Any]:
    """Prepare noisy points, with what numpy and what torch draw."""
    x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))
    return {"points": [x, torch.randn(8, 1)], "sum": x.numpy().sum(1), "name": "points"}


def fit(
    model: torch.nn.Module, prepared: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Fit a line to prepared points, with noise of the device's own."""
    x, noise = prepared["points"]
    assert prepared["name"] == "points"
    target = prepared["sum"][:, None] + 0.01 * noise + 0.01 * torch.randn_like(noise)
    value = (model(x) - target).square().mean()
    return value, {"error": value.detach().sqrt()}


@pytest.fixture
def nothing_to_do_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect, where other tests of this process ran flows, has calls for its end that fail in forks."""
    monkeypatch.setattr(threading, "_threading_atexits", [])


@pytest.mark.usefixtures("nothing_to_do_at_the_end")
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_prepared_by_other_processes_give_the_same_losses(
    tmp_path: Path, workers: int
) -> None:
    def losses(folder: Path, count: int, stop: int | None = None) -> list[float]:
        seen: list[float] = []

        def note(model: torch.nn.Module, prepared: dict[str, Any]) -> Any:
            value, parts = fit(model, prepared)
            seen.append(float(value.detach()))
            if len(seen) == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return value, parts

        run(folder, 12, loss=note, batch=prepare, workers=count)
        return seen

    alone = losses(tmp_path / "alone", 0)
    assert len(set(alone)) == 12
    assert losses(tmp_path / "helped", workers) == alone
    with pytest.raises(SystemExit):
        losses(tmp_path / "parts", workers, stop=4)
    assert losses(tmp_path / "parts", workers) == alone[4:]


def test_a_run_stopped_by_a_signal_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 12)
    calls = []

    def stop_at_five(model: torch.nn.Module, rng: np.random.Generator) -> Any:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(model, rng)

    with pytest.raises(SystemExit):
        run(tmp_path / "parts", 12, loss=stop_at_five)
    assert len(calls) == 5
    resumed = run(tmp_path / "parts", 12)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_stage_is_not_trained_again_but_exported(tmp_path: Path) -> None:
    run(tmp_path, 6)
    exported = []

    def refuse(model: torch.nn.Module, rng: np.random.Generator) -> Any:
        raise AssertionError("a finished stage took a step")

    run(tmp_path, 6, loss=refuse, export=lambda model: exported.append(model))
    assert exported


def test_the_rate_warms_up_and_falls_to_nothing_by_steps_or_by_time() -> None:
    schedule = Schedule(100, 1.0, minutes=10, warmup=10)
    assert schedule.rate(0, 0) == pytest.approx(0.1)
    assert schedule.rate(50, 0) == pytest.approx(0.5)
    assert schedule.rate(20, 600) == pytest.approx(0.0)
    assert schedule.rate(100, 0) == pytest.approx(0.0)
