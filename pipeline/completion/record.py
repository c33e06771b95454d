"""What the output says of a row that went through the generator: its outcome and its provenance."""

from __future__ import annotations

from typing import Any

from generators.base import needs_of
from kb.embeddings import Modality
from pipeline.completion.row import Grounds, Row, Tried
from pipeline.config.config import Config
from pipeline.knowledge.seen import Knowledge
from pipeline.models.loaded import LoadedModels


def status(row: Row) -> str:
    """The outcome of a finished row."""
    if row.error is not None:
        return "failed"
    return "rejected" if row.chosen is None else "completed"


def reason(row: Row) -> str:
    """Why the half was missing, and why it still is, where it is."""
    if row.error is not None:
        return f"{row.reason}; {row.error}"
    return row.reason if row.chosen is not None else "; ".join([row.reason, *row.faults])


class Recorder:
    """Writes the column `completion`; see `pipeline.dataset.schema`.

    Parameters
    ----------
    config : Config
    models : LoadedModels
    knowledge : Knowledge
    run_id : str
    """

    def __init__(
        self, config: Config, models: LoadedModels, knowledge: Knowledge, run_id: str
    ) -> None:
        self._config = config
        self._models = models
        self._knowledge = knowledge
        self._run_id = run_id
        self._format = config.generation.image_format

    def completion(self, row: Row, missing: Modality) -> dict[str, Any]:
        """The provenance of a row: what made it, from which pairs, out of which candidates."""
        component = self._config.generator_component(missing)
        main = next(iter(self._models.resolved(component).values()), None)
        best, needs = row.best, needs_of(component.settings)
        given = [half for half in ("text", "image") if getattr(needs, half)]
        # What a half was made from; where none holds, what all of them were.
        of = [tried.candidate for tried in row.tried] if best is None else [best.candidate]
        served = next((one.revision for one in of if one.revision is not None), None)
        return {
            "generator": component.kind,
            "model": component.served if main is None else main.name,
            "revision": served if main is None else main.revision,
            "prompt": best.candidate.prompt if best else None,
            "seed": best.candidate.seed if best else None,
            "attempt": best.attempt if best else None,
            "second_look": best.second_look if best else None,
            "kb_version": self._knowledge.base.version,
            "examples": [_example(example, given) for example in row.shown(of)],
            "dropped": _dropped(row),
            "candidates": [_candidate(tried) for tried in row.tried],
            "chosen": row.chosen,
            "score": best.judgement.score if best else None,
            "confidence": row.confidence.expected if row.confidence else None,
            "gain_probability": row.confidence.gain if row.confidence else None,
            "run_id": self._run_id,
            "image_format": None
            if best is None or best.candidate.image is None
            else self._format.of(best.candidate.image),
        }


def _example(example: Grounds, given: list[str]) -> dict[str, Any]:
    return {
        "id": example.pair.id,
        "source": example.pair.source,
        "licence": example.pair.licence,
        "text": example.caption,
        "shown": given,
        "picture": example.pair.picture,
        "intra": example.hit.intra,
        "cross": example.hit.cross,
        "score": example.hit.score,
    }


def _dropped(row: Row) -> list[dict[str, Any]]:
    """The retrieved pairs that no candidate was shown, best first."""
    candidates = [tried.candidate for tried in row.tried]
    shown = {one for candidate in candidates for one in candidate.shown}
    said = {one.id: one.reason for candidate in candidates for one in candidate.dropped}
    left = [
        (example, said.get(example.pair.id, "not shown"))
        for example in row.retrieved
        if candidates and example.pair.id not in shown
    ]
    return [
        {
            "id": example.pair.id,
            "source": example.pair.source,
            "licence": example.pair.licence,
            "reason": reason,
        }
        for example, reason in [*row.dropped, *left]
    ]


def _candidate(tried: Tried) -> dict[str, Any]:
    judgement = tried.judgement
    return {
        "text": tried.candidate.text,
        "seed": tried.candidate.seed,
        "attempt": tried.attempt,
        "second_look": tried.second_look,
        "cosine": judgement.cosine,
        "bleu": judgement.bleu,
        "niqe": judgement.niqe,
        "score": judgement.score,
        "agreement": judgement.agreement,
        "hubness": judgement.hubness,
        "valid": judgement.valid,
        "reason": judgement.reason,
        "notes": [*tried.candidate.notes, *tried.notes],
        "examples": list(tried.candidate.shown),
    }
