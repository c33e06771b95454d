"""What the generators' servers counted, kept while a run goes on and summed up over all runs.

Each process of a run has a file of its own beside the manifests, which is written anew after each block: what
was paid for is known also of a run that was killed, but for the block that it was at.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generators.usage import Price, Usage
from kb.embeddings import MODALITIES, Modality
from pipeline.storage.files import read_json, write_whole


class UsageLog:
    """What this process has used.

    Parameters
    ----------
    folder : Path
        The ledger's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = uuid.uuid4().hex[:12]
        self._held: dict[str, dict[Modality, Usage]] = {}

    def add(self, run_id: str, half: Modality, usage: Usage) -> None:
        """Keep what was used for a half; on disk when it returns."""
        if usage == Usage():
            return
        held = self._held.setdefault(run_id, {})
        held[half] = held.get(half, Usage()) + usage
        told = {name: one.dump() for name, one in held.items()}
        text = json.dumps({"run_id": run_id, "usage": told})
        write_whole(self._folder / self.file(run_id), text)

    def file(self, run_id: str) -> str:
        """The name of the file of a run."""
        return f"usage-{run_id}-{self._name}.json"


def used(folder: Path, run_id: str | None = None) -> dict[Modality, Usage]:
    """What was used for each half by a run, or by all of them; halves without any are left out."""
    found: dict[Modality, Usage] = {}
    for path in sorted(folder.glob(f"usage-{run_id or ''}*.json")):
        told = (read_json(path) or {}).get("usage", {})
        for half in MODALITIES:
            if half in told:
                found[half] = found.get(half, Usage()) + Usage.parse(told[half])
    return found


def summed(folder: Path, run_id: str, prices: Mapping[Modality, Price | None]) -> dict[str, Any]:
    """Usage by half for a summary: `now` of this run, and `all` of every run, with their `cost`.

    The cost is by the prices of today, in their `currency`; None where there is no price.
    """
    now = used(folder, run_id)
    return {
        half: {
            "now": priced(now.get(half, Usage()), prices.get(half)),
            "all": priced(usage, prices.get(half)),
            "currency": None if (price := prices.get(half)) is None else price.currency,
        }
        for half, usage in used(folder).items()
    }


def priced(usage: Usage, price: Price | None) -> dict[str, Any]:
    """A usage by name, with its cost."""
    return usage.dump() | {"cost": None if price is None else round(price.cost(usage), 6)}


def told_usage(half: str, usage: Mapping[str, Any]) -> str:
    """The usage of a half in a line."""
    now, every = usage["now"], usage["all"]
    line = f"server for {half}s: {_told(now, usage['currency'])}"
    return line if now == every else f"{line}; all runs: {_told(every, usage['currency'])}"


def _told(usage: Mapping[str, Any], currency: str | None) -> str:
    parts = [f"{usage['requests']:,} requests"]
    if usage["input_tokens"] or usage["output_tokens"]:
        parts.append(f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out")
    if usage["images"]:
        parts.append(f"{usage['images']:,} images")
    if usage["cost"] is not None:
        parts.append(f"{currency} {usage['cost']:,.2f}")
    return ", ".join(parts)
