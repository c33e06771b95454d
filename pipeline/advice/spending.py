"""What a run's requests to servers would take and cost, by what such requests took before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generators.usage import Usage
from kb.embeddings import Modality
from pipeline.config.config import Config
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.usage import used

MEASURED = "the requests of --time"
RECORDED = "the requests of earlier runs"


def spending(
    config: Config, drawn: Mapping[str, Sequence[int]], timed: Mapping[Modality, Usage]
) -> dict[str, dict[str, Any]]:
    """Tokens, images and cost of the rows that are to be done, of halves that a server makes.

    Parameters
    ----------
    config
    drawn
        Candidates to draw by missing half, [least, most].
    timed
        What was used just now to time a handful of them.

    Returns
    -------
    dict
        By half: `requests`, `input_tokens`, `output_tokens`, `images` and `cost` as [least, most],
        `currency`, and `rests_on`, what an answer's usage was
        taken from, with `answers`, how many. The figures are None where nothing was counted yet, `cost`
        also where there is no `price`.
    """
    recorded = used(Ledger(config.folder).folder)
    found: dict[str, dict[str, Any]] = {}
    for half, price in config.prices.items():
        settings = config.generator_component(half).settings
        if not any(drawn[half]) or not hasattr(settings, "price"):
            continue
        usage, rests_on = timed.get(half, Usage()), MEASURED
        if not usage.answers:
            usage, rests_on = recorded.get(half, Usage()), RECORDED
        bounds = drawn[half]
        known = usage.answers > 0
        found[half] = {
            "requests": list(bounds),
            **{
                name: [round(count * getattr(usage, name) / usage.answers) for count in bounds]
                if known
                else None
                for name in ("input_tokens", "output_tokens", "images")
            },
            "cost": [round(price.cost(usage) * count / usage.answers, 6) for count in bounds]
            if known and price is not None
            else None,
            "currency": None if price is None else price.currency,
            "rests_on": rests_on if known else None,
            "answers": usage.answers,
        }
    return found
