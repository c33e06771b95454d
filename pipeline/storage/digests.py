"""The one digest by which the pipeline knows content, settings and files again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pyarrow as pa

# How tables hold digests: half of what hex takes, and no offsets.
DIGEST = pa.binary(16)
# Where there is nothing to digest, for comparing.
NO_DIGEST = pa.scalar(bytes(16), DIGEST)


def digest(*parts: bytes | str) -> str:
    """A 128-bit BLAKE2b digest in hex of the parts, each told apart by its length.

    Examples
    --------
    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def packed(digests: Iterable[str | None]) -> pa.Array:
    """Digests in hex as an array of `DIGEST`."""
    return pa.array([None if one is None else bytes.fromhex(one) for one in digests], DIGEST)


def in_hex(digests: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """The digests of an array of `DIGEST` in hex."""
    return [None if one is None else one.hex() for one in digests.to_pylist()]
