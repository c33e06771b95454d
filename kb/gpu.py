"""faiss on a GPU: which one, with how much memory beside the indexes, and what it cannot do."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

# faiss's GPU kernels choose among so many neighbours, and search so many lists, at most.
MOST_SELECTED = 2048
# Working memory, one for all indexes; faiss's own default takes 1.5 GiB for each.
_WORKING_BYTES = 256 * 1024 * 1024


def gpu_number(device: str) -> int | None:
    """faiss's number of a torch device ("cuda", "cuda:1"); None where faiss has no such GPU."""
    if not device.startswith("cuda"):
        return None
    import faiss

    number = int(device.partition(":")[2] or 0)
    return number if number < faiss.get_num_gpus() else None


@cache
def _resources() -> Any:
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_WORKING_BYTES)
    return resources


def on_gpu(index: Any, device: str, *, half: bool = False) -> Any:
    """A copy of a faiss index on a GPU; None where there is no such GPU or no room on it.

    Parameters
    ----------
    index : faiss.Index
    device : str
        A torch device.
    half : bool
        Let faiss compute in half precision, which moves similarities by 1e-4.
    """
    number = gpu_number(device)
    if number is None:
        return None
    import faiss

    options = faiss.GpuClonerOptions()
    options.useFloat16 = half
    try:
        return faiss.index_cpu_to_gpu(_resources(), number, index, options)
    except RuntimeError as error:
        logger.warning(
            "an index of %d rows stays on the CPU, it does not go to %s: %s",
            index.ntotal,
            device,
            str(error).strip().splitlines()[-1],
        )
        return None
