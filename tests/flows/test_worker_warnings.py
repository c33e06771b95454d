"""What a cluster's workers warn of reaches whoever reads the run's result, once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from generators.base import Generated
from pipeline.storage.warned import Warned, pass_on
from tests import quick_worlds as worlds
from tests.quick_parts import QuickCaptioner

ROOT = Path(__file__).parents[2]


class WarningCaptioner(QuickCaptioner):
    """Warns with every block, of the rows in it."""

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        logger = logging.getLogger("generators.of_this_test")
        logger.warning("the model is old")
        for request in requests:
            logger.warning("%s was cut", request.row_id)
        return super().generate(requests)


def test_warnings_of_another_process_are_counted_by_kind_as_ones_own() -> None:
    logger = logging.getLogger("kb.of_this_test")
    with Warned() as theirs:
        for number in range(3):
            logger.warning("row %d was cut", number)
    with Warned() as ours:
        logger.warning("row %d was cut", 7)
        pass_on(theirs.found())
        pass_on(theirs.found())
    assert ours.told() == [
        "row 7 was cut",
        "row 0 was cut",
        "row 1 was cut",
        "… and 2 more like the last",
    ]


@pytest.mark.slow
def test_a_run_on_workers_tells_what_they_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    from flows.run import run_flow

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    worlds.write(tmp_path / "data" / "a.parquet", worlds.rows(20, 10, 0))
    config = worlds.config(
        tmp_path,
        engine={"kind": "dask", "workers": 1, "gpus": 0},
        captioner={"kind": f"{__name__}:WarningCaptioner"},
    )
    warnings = run_flow(str(config))["warnings"]
    assert warnings.count("the model is old") == 1
    assert sum(line.endswith("was cut") for line in warnings) == 3
