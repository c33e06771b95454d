"""What it takes to read rows by and by: about one pass over their file, in any form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.forms.base import Batch
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.root import Root
from tests.pipeline.dataset.forms.form_writers import make_rows, write_csv, write_webdataset_gz
from tests.pipeline.dataset.forms.small_files import open_dataset, read, write_parquet

BLOCK = 32


class Counted:
    """A file that counts what is read of it."""

    def __init__(self, file: IO[bytes], counts: list[int]) -> None:
        self._file = file
        self._counts = counts

    def read(self, *size: int) -> bytes:
        data = self._file.read(*size)
        self._counts.append(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    whole = Root.open
    monkeypatch.setattr(Root, "open", lambda root, name: Counted(whole(root, name), counts))
    return counts


def write_one_group(rows: list[dict[str, Any]], folder: Path) -> None:
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    pq.write_table(table, folder / "all.parquet", compression="none")


@pytest.mark.parametrize(
    ("write", "form"),
    [(write_one_group, "parquet"), (write_csv, "csv"), (write_webdataset_gz, "webdataset")],
)
def test_blocks_of_ascending_rows_cost_about_one_pass(
    write: Callable[[list[dict[str, Any]], Path], None],
    form: str,
    tmp_path: Path,
    bytes_read: list[int],
) -> None:
    write(make_rows(form, 2000), tmp_path)
    dataset = open_dataset(tmp_path)
    rows, (file,) = read(dataset), dataset.files
    for kind in (slice(0, None, 3), slice(1, None, 3)):
        wanted = list(range(len(rows)))[kind]
        bytes_read.clear()
        for start in range(0, len(wanted), BLOCK):
            block = wanted[start : start + BLOCK]
            assert dataset.fetch(file, block).to_pylist() == [rows[place] for place in block]
        size = (tmp_path / file.name).stat().st_size
        # The header of a CSV is read for itself.
        assert sum(bytes_read) < 1.5 * size + 20_000


def test_a_file_that_has_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    for word in ("old", "new one"):
        texts = [f"{word} {number}" for number in range(1000)]
        write_parquet(tmp_path / "a.parquet", id=list(map(str, range(1000))), text=texts)
        if word == "old":
            dataset = open_dataset(tmp_path)
        found = dataset.fetch(dataset.files[0], [500])
        assert found["text"].to_pylist() == [[f"{word} 500"]]
        dataset.fetch(dataset.files[0], [0])


class TestReadings:
    @pytest.fixture
    def starts(self) -> list[int]:
        """Batches that were read, by reading."""
        return []

    @pytest.fixture
    def start(self, starts: list[int]) -> Callable[[], Iterator[Batch]]:
        def batches() -> Iterator[Batch]:
            number = len(starts)
            starts.append(0)
            for first in range(0, 1000, 10):
                starts[number] += 1
                numbers = np.arange(first, first + 10)
                yield numbers, pa.record_batch({"number": numbers})

        return batches

    def numbers(self, batches: Iterator[Batch]) -> list[int]:
        return [number for _, batch in batches for number in batch["number"].to_pylist()]

    def test_look_ups_beside_do_not_end_a_reading(self, starts: list[int], start: Any) -> None:
        readings = Readings()
        for first in range(0, 1000, BLOCK):
            block = np.arange(first, min(first + BLOCK, 1000))
            assert self.numbers(readings.take("file", block, start)) == block.tolist()
            look_up = np.array([3, 17])
            assert self.numbers(readings.take("other", look_up, start)) == [3, 17]
        assert sorted(starts) == [*[2] * 32, 100]

    def test_rows_behind_a_reading_start_it_anew(self, starts: list[int], start: Any) -> None:
        readings = Readings()
        for wanted in ([500, 501], [505], [499], [900]):
            assert self.numbers(readings.take("file", np.array(wanted), start)) == wanted
        assert starts == [91, 50]

    def test_a_reading_that_failed_is_not_gone_on_with(self) -> None:
        def batches() -> Iterator[Batch]:
            yield np.arange(10), pa.record_batch({"number": np.arange(10)})
            raise OSError("the disk stumbled")

        readings = Readings()
        for _ in range(2):
            with pytest.raises(OSError, match="stumbled"):
                self.numbers(readings.take("file", np.array([3, 12]), batches))
