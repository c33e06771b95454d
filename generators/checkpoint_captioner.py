"""What captioners whose model runs on this machine have in common."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from generators.base import Candidate, CaptionRequest, Generated
from generators.batching import BatchRunner, Failed, NotFinite, collect, seeds_together
from generators.checkpoints import CheckpointSettings, loading, local_folder, own_dtype
from generators.device import module_bytes, release_memory, resolve_device, resolve_dtype

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


# What the subclass notes of one caption to draw.
JobT = TypeVar("JobT")
SettingsT = TypeVar("SettingsT", bound=CheckpointSettings)


class CheckpointCaptioner(ABC, Generic[SettingsT, JobT]):
    """Captions of images by one checkpoint of transformers.

    Parameters
    ----------
    settings
        The captioner's own, which has a checkpoint's.
    paths : mapping
        ``model`` -> local folder of the checkpoint.
    """

    def __init__(self, settings: SettingsT, paths: Mapping[str, Path]) -> None:
        self.settings = settings
        self.paths = paths
        self._model: Any = None
        self._processor: Any = None
        self._dtype = ""
        self._runner: BatchRunner[JobT, Candidate] = BatchRunner(
            self._draw, settings.batch_size, settings.device
        )
        self._requests: Sequence[CaptionRequest] = ()

    def load(self) -> None:
        """Load model and processor, once.

        Raises
        ------
        ValueError
            When the folder isn't such a checkpoint in safetensors, or the model can't be used with
            these settings.
        """
        if self._model is not None:
            return
        started = time.monotonic()
        folder = local_folder(self.paths, "model", "config.json")
        device = resolve_device(self.settings.device)
        dtype = resolve_dtype(self.settings.dtype, device, own_dtype(folder))
        self._dtype = str(dtype).removeprefix("torch.")
        with loading():
            self._model, self._processor = self._read(folder, dtype)
        try:
            self._model.to(device).eval()
            self._prepare()
        except BaseException:
            self.close()
            raise
        logger.info(
            "loaded captioner %s on %s in %s: %.2f GB, %.1f s",
            self.settings.model,
            device,
            self._dtype,
            self.memory() / 1e9,
            time.monotonic() - started,
        )

    def close(self) -> None:
        """Drop model and processor and give their memory back."""
        self._model = self._processor = None
        release_memory()

    def memory(self) -> int:
        """Bytes of the weights; 0 before `load`."""
        return 0 if self._model is None else module_bytes([self._model])

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """Draw a caption for every seed of every request.

        A row whose caption does not fit into memory even alone, or that the model or its processor
        can't take, gets an error; the others go on.
        """
        self.load()
        self._requests = requests
        try:
            drawn = iter(self._runner.run(self._jobs(), together=seeds_together(requests)))
        finally:
            self._requests = ()
            self._forget()
        return [
            collect(request.row_id, [next(drawn) for _ in request.seeds]) for request in requests
        ]

    @abstractmethod
    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        """Model and processor from a checkpoint's folder."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make ready what `_read` gave, or raise ValueError where it can't be used."""

    @abstractmethod
    def _jobs(self) -> list[JobT]:
        """The captions that `self._requests` ask for, in their order."""

    @abstractmethod
    def _draw(self, jobs: list[JobT]) -> list[Candidate | Failed]:
        """One batch of captions."""

    def _not_finite(self) -> NotFinite:
        """What stands for a caption that was drawn from scores that are not finite."""
        help = "" if self._dtype == "float32" else "; set dtype to bfloat16 or float32"
        return NotFinite(f"the model's scores are not finite in {self._dtype}{help}")

    def _forget(self) -> None:
        """Drop what was kept between the batches of one call."""
