"""Where a model runs, in which precision, and how much it takes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

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


def module_bytes(modules: Iterable[Any]) -> int:
    """Bytes of the parameters and buffers of torch modules, shared ones counted once."""
    seen: dict[int, int] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(seen.values())
