"""Where products run: the torch device that a setting means, and the same GPU to faiss."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

# faiss's GPU kernels choose among so many neighbours, and search so many lists, at most.
MOST_SELECTED = 2048
# Working memory, one for all indexes; faiss's own default takes 1.5 GiB for each.
_WORKING_BYTES = 256 * 1024 * 1024


def resolve_device(device: str) -> str:
    """The torch device that a setting stands for.

    `auto` becomes "cuda" where torch sees a GPU, else "cpu"; others pass through. Who names a GPU
    means it: on a CPU the same work might take days. The rule is that of `generators.device`.

    Raises
    ------
    ValueError
        A GPU is named that torch doesn't see, or torch doesn't know the name.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        named = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}") from None
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device must be a GPU that torch sees, or auto or cpu; got {device!r}")
    return device


@contextmanager
def exact_products() -> Iterator[None]:
    """Full float32 products: TF32 would move similarities by 1e-3, and the neighbours with them."""
    import torch

    products = torch.backends.cuda.matmul
    # torch refuses the older name once somebody has used the newer one.
    newer = hasattr(products, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = getattr(products, name)
    setattr(products, name, exact)
    try:
        with torch.inference_mode():
            yield
    finally:
        setattr(products, name, before)


def faiss_gpu(device: str) -> int | None:
    """faiss's number of a torch device ("cuda", "cuda:1"); None where faiss has no such GPU."""
    if not device.startswith("cuda"):
        return None
    import faiss

    number = int(device.partition(":")[2] or 0)
    return number if number < faiss.get_num_gpus() else None


@cache
def faiss_resources() -> Any:
    """faiss's working memory on GPUs, one for the whole process."""
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_WORKING_BYTES)
    return resources


def release_gpu() -> None:
    """Give back faiss's working memory on GPUs, and what dead tensors hold there."""
    import torch

    gc.collect()
    faiss_resources.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
    number = faiss_gpu(device)
    if number is None:
        return None
    import faiss

    options = faiss.GpuClonerOptions()
    options.useFloat16 = half
    try:
        return faiss.index_cpu_to_gpu(faiss_resources(), number, index, options)
    except RuntimeError as error:
        logger.warning(
            "an index of %d rows stays on the CPU, it does not go to %s: %s",
            index.ntotal,
            device,
            str(error).strip().splitlines()[-1],
        )
        return None
