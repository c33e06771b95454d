"""Where a model runs, in which precision, and how much it takes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# What Linux counts of this process.
STATUS = Path("/proc/self/status")

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


def resolve_device(device: str) -> torch.device:
    """Device that a setting means.

    ``auto`` is a GPU where torch sees one, else the CPU. Who names a GPU means it: on a CPU the same
    work might take days. The rule is that of `kb.device`.

    Raises
    ------
    ValueError
        When a GPU is named that torch doesn't see, or the name is unknown to torch.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device must be a GPU that torch sees, or auto or cpu; got {device!r}")
    return resolved


def resolve_dtype(dtype: Dtype, device: torch.device, own: str | None = None) -> torch.dtype:
    """Precision that a setting means on a device.

    ``auto`` is float32 on a CPU, which holds every checkpoint as it is. On a GPU it is the half
    precision that the checkpoint was written in; bfloat16, whose range is that of float32, for one in
    float32. Where the GPU has no bfloat16, what was written in it runs in float32, since float16 may
    overflow, and what was written in float32 in float16.

    Parameters
    ----------
    dtype : {"auto", "float32", "float16", "bfloat16"}
    device : torch.device
    own : str or None
        What the checkpoint is written in; None where it doesn't say, which counts as float32.
    """
    import torch

    named = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype != "auto":
        return named[dtype]
    if device.type != "cuda":
        return torch.float32
    if own == "float16":
        return torch.float16
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32 if own == "bfloat16" else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that this much memory can't be had, on a GPU or on the host."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # torch reports the host's own shortage, and cuBLAS its workspace's, as a bare RuntimeError.
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in (
            "not enough memory",
            "can't allocate memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
        )
    )


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the GPU answers nothing any more, whatever it is asked."""
    import torch

    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )


def release_memory() -> None:
    """Give back what dead tensors hold, so that a smaller attempt finds room."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken on a device: what others leave, and what torch holds unused.

    0 on a CPU whose system doesn't tell.
    """
    import torch

    if device.type != "cuda":
        return _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + held)


class Peak:
    """How many bytes more than before were taken at most while its block ran.

    On a CPU it is what Linux counts of the process; 0 where that can't be told.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0

    def __enter__(self) -> Peak:
        import torch

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            self._before = _kilobytes(STATUS, "VmRSS") if _forget_peak() else 0
        return self

    def __exit__(self, *error: object) -> None:
        import torch

        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        elif self._before:
            self.bytes = max(0, _kilobytes(STATUS, "VmHWM") - self._before)


def _forget_peak() -> bool:
    """Let Linux count this process's peak from here on; False where it doesn't."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _kilobytes(file: Path, name: str) -> int:
    """A figure of Linux's own on memory, in bytes; 0 where there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(next(found, 0)) * 1024


def module_bytes(modules: Iterable[Any]) -> int:
    """Bytes of the parameters and buffers of torch modules, shared ones counted once."""
    seen: dict[int, int] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(seen.values())
