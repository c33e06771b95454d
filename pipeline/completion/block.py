"""A block of incomplete rows on its way: grounded, answered by the generator, judged.

What a generator needs stands before it is asked, and what follows needs it no more, so that
`pipeline.completion.shard` can do both for other blocks while a generator works on one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from generators.asked import Asked, submit
from generators.base import (
    Candidate,
    CaptionRequest,
    Generated,
    ImageRequest,
    derive_seed,
    needs_of,
)
from kb.embeddings import Modality, opposite
from pipeline.completion.asking import joined_answer, requests_of
from pipeline.completion.confidence import Calibration
from pipeline.completion.evidence import evidence_of
from pipeline.completion.halves import decode_pictures, embedded_captions, nearest_caption
from pipeline.completion.row import Grounds, Row, Tried
from pipeline.completion.written import as_written, encoded
from pipeline.config.config import Config
from pipeline.knowledge.seen import Knowledge
from pipeline.ledger.ledger import Entry
from pipeline.ledger.review import REFUSED, half_digest
from pipeline.models.item_errors import embed_each
from pipeline.models.loaded import LoadedModels
from selection.judgement import Judged


class Block:
    """Incomplete rows that miss the same half.

    Parameters
    ----------
    config : Config
    models : LoadedModels
    knowledge : Knowledge
    missing : {"image", "text"}
    entries : sequence of Entry
    cells : list
        Each row's observed half as the dataset gives it.
    reasons : sequence of str or None
        Why the other half is missing.
    refused : mapping
        Digests (`pipeline.ledger.review.half_digest`) of the halves that a person rejected, by id: they
        are not chosen again.
    calibration : Calibration, optional
        By which the confidence of what is chosen is told; a floor of it holds only with one.
    """

    def __init__(
        self,
        config: Config,
        models: LoadedModels,
        knowledge: Knowledge,
        missing: Modality,
        entries: Sequence[Entry],
        cells: Sequence[Any],
        reasons: Sequence[str | None],
        refused: Mapping[str, Sequence[str]] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.config = config
        self.models = models
        self.knowledge = knowledge
        self.refused = refused or {}
        self.calibration = calibration
        self.missing: Modality = missing
        self.observed = opposite(missing)
        self.turn = 0
        self.image_format = config.generation.image_format
        self.component = config.generator_component(missing)
        self.needs = needs_of(self.component.settings)
        self.grounded = config.generation.grounded_of(missing, self.needs)
        self.rows = [
            self._row(entry, cell, reason or "unknown")
            for entry, cell, reason in zip(entries, cells, reasons, strict=True)
        ]
        # What is embedded of each row; of a picture what the encoder made of it.
        self._seen = [row.item for row in self.rows]
        if self.observed == "image":
            most = config.dataset.max_pixels
            self._seen = decode_pictures(models, self.rows, self.needs, most)

    def _row(self, entry: Entry, cell: Any, reason: str) -> Row:
        if self.observed == "text":
            return Row(entry.id, cell, reason, entry.first_attempt)
        return Row(
            entry.id, None, reason, entry.first_attempt, file=cell["bytes"], side=self.needs.side
        )

    def ground(self) -> None:
        """Embed the observed halves, find the pairs that ground them, predict the missing ones."""
        observed = self.observed
        had = [number for number, row in enumerate(self.rows) if row.error is None]
        rows = [self.rows[number] for number in had]
        seen, self._seen = [self._seen[number] for number in had], []
        embeddings, faults = embed_each(self.models, seen, observed)
        for place, why in faults.items():
            rows[place].error = f"the observed {observed}: {why}"
        sound = [place for place in range(len(rows)) if place not in faults]
        rows, embeddings = [rows[place] for place in sound], embeddings[sound]
        if not rows:
            return
        ids = [row.id for row in rows]
        predicted = self.knowledge.pseudo(embeddings, observed, ids)
        if predicted is not None:
            for row, pseudo in zip(rows, predicted, strict=True):
                row.pseudo = pseudo
        if not self.grounded:
            return
        found = self.knowledge.retrieve(embeddings, observed, ids)
        pairs = self.knowledge.pairs(
            [hit.row for hits in found for hit in hits],
            with_images=self.needs.image,
            longest_side=self.needs.side,
        )
        own = embeddings if observed == "text" else [row.pseudo for row in rows]
        spoken = embedded_captions(self.models, pairs.values())
        for row, target, hits in zip(rows, own, found, strict=True):
            for hit in hits:
                pair = pairs[hit.row]
                caption = nearest_caption(pair.captions, target, spoken)
                example = Grounds(pair, caption, hit, self.needs.side)
                if pair.fault is None:
                    row.examples.append(example)
                else:
                    row.dropped.append((example, pair.fault))

    def open_rows(self) -> list[Row]:
        """Rows that wait for the generator, while there are attempts left."""
        if self.turn >= self.config.generation.attempts:
            return []
        return [row for row in self.rows if row.chosen is None and row.error is None]

    def generate(self) -> list[Generated]:
        """Ask the generator for n candidates of every open row, and wait for them."""
        return self.ask().gather()

    def ask(self) -> Asked:
        """Ask the generator for n candidates of every open row; their answers come in order.

        What is under way needs no picture any more: this block lets them go.
        """
        rows = self.open_rows()
        if not rows:
            return Asked.answered([])
        requests = [self._requests(row) for row in rows]
        asked = submit(
            self.models.generator(self.missing), [one for own in requests for one in own]
        )
        counts = [len(own) for own in requests]
        if asked.ahead:
            for row in rows:
                row.let_pictures_go()

        def by_row(answers: list[Generated]) -> list[Generated]:
            left = iter(answers)
            return [
                joined_answer(row, self.component, [next(left) for _ in range(count)])
                for row, count in zip(rows, counts, strict=True)
            ]

        return asked.then(by_row)

    def _requests(self, row: Row) -> list[CaptionRequest | ImageRequest]:
        settings, attempt = self.config.generation, row.first_attempt + self.turn
        seeds = tuple(
            derive_seed(self.config.run.seed, row.id, n, attempt) for n in range(settings.n)
        )
        return requests_of(row, self.missing, self.needs, seeds, self.grounded)

    def example_bytes(self) -> int:
        """Bytes of the examples' pictures as they are stored."""
        pairs = {one.pair.row: one.pair.encoded for row in self.rows for one in row.examples}
        return sum(len(encoded or b"") for encoded in pairs.values())

    def judge(self, answers: Sequence[Generated]) -> None:
        """Judge what `generate` gave, and choose each row's best where one holds."""
        rows = self.open_rows()
        answers = [as_written(answer, self.image_format) for answer in answers]
        made = [c for answer in answers for c in answer.candidates]
        embeddings, faults = self._embed(made)
        start = 0
        for row, answer in zip(rows, answers, strict=True):
            if not answer.candidates:
                row.error = answer.error or "the generator gave no candidate"
                continue
            span = range(start, start + len(answer.candidates))
            start = span.stop
            own = {place - span.start: faults[place] for place in span if place in faults}
            known = {**own, **self._refused(row, answer)}
            judged = self._judge(row, answer.candidates, embeddings[span.start : start], known)
            offset = len(row.tried)
            attempt = row.first_attempt + self.turn
            lacking = () if answer.error is None else (f"others failed: {answer.error}",)
            notes = (*judged.notes, *lacking)
            row.tried += [
                Tried(attempt, candidate, judgement, embedding, notes)
                for candidate, judgement, embedding in zip(
                    answer.candidates,
                    judged.judgements,
                    embeddings[span.start : start],
                    strict=True,
                )
            ]
            reason = judged.reason
            if judged.chosen is not None:
                row.chosen = offset + judged.chosen
                reason = self._doubt(row)
            if row.chosen is None:
                row.faults.append("; ".join([f"attempt {attempt}: {reason}", *lacking]))
        self.turn += 1

    def _doubt(self, row: Row) -> str | None:
        """Say what is expected of a row's choice; where that is too little it is none, and why."""
        if self.calibration is None:
            return None
        [found] = self.calibration.of(evidence_of(row)[None])
        floor = self.config.scoring[self.missing].floor_confidence
        if floor is not None and found.expected < floor:
            row.chosen = None
            return f"below floor: confidence {found.expected:.3f} < floor_confidence {floor:g}"
        row.confidence = found
        return None

    def _embed(self, candidates: Sequence[Candidate]) -> tuple[np.ndarray, dict[int, str]]:
        """Unit embeddings [n, d], and by number why a candidate can't be embedded.

        Zeros stand for those, and for candidates that are nothing to embed.
        """
        held = [[c.text] if self.missing == "text" else c.image for c in candidates]
        empty = [not (c.text or "").strip() and c.image is None for c in candidates]
        real = [number for number, nothing in enumerate(empty) if not nothing]
        found, faults = embed_each(self.models, [held[number] for number in real], self.missing)
        embeddings = np.zeros((len(candidates), found.shape[1]), np.float32)
        embeddings[real] = found
        return embeddings, {real[place]: why for place, why in faults.items()}

    def _judge(
        self,
        row: Row,
        candidates: Sequence[Candidate],
        embeddings: np.ndarray,
        known_faults: Mapping[int, str],
    ) -> Judged:
        selector = self.knowledge.selector_of(row.id)
        if self.missing == "text":
            shown = row.shown(candidates)
            references = [caption for each in shown for caption in each.pair.captions]
            return selector.judge_captions(
                [candidate.text or "" for candidate in candidates],
                embeddings,
                row.pseudo,
                references,
                [candidate.prompt for candidate in candidates],
                known_faults,
            )
        return selector.judge_images(
            [candidate.image for candidate in candidates], embeddings, row.pseudo, known_faults
        )

    def _refused(self, row: Row, answer: Generated) -> dict[int, str]:
        """Candidates that are what a person rejected, by number."""
        digests = self.refused.get(row.id, ())
        if not digests:
            return {}
        return {
            number: REFUSED
            for number, candidate in enumerate(answer.candidates)
            if half_digest(
                candidate.text,
                None if candidate.image is None else encoded(candidate, self.image_format),
            )
            in digests
        }
