"""A block of incomplete rows on its way: grounded, answered by the generator, judged.

What a generator needs stands before it is asked, and what follows needs it no more, so that
`pipeline.completion.shard` can do both for other blocks while a generator works on one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generators.asked import Asked, submit
from generators.base import Generated, derive_seed, needs_of
from kb.embeddings import Modality, opposite
from pipeline.completion.asking import joined_answer, requests_of
from pipeline.completion.evidence import evidence_of, state_of
from pipeline.completion.halves import decode_pictures, embedded_captions, nearest_caption
from pipeline.completion.judging import drawn, embedded, judged, refused
from pipeline.completion.learned import Learned
from pipeline.completion.row import Grounds, Row
from pipeline.completion.written import as_written
from pipeline.config.config import Config
from pipeline.knowledge.seen import Knowledge
from pipeline.ledger.ledger import Entry
from pipeline.models.item_errors import embed_each
from pipeline.models.loaded import LoadedModels
from selection.scoring import Selector


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
    learned : Learned, optional
        What the check has taught. Without a calibration no confidence is told and a floor of it holds for
        none; where it is not known when one more candidate pays, all that may be are drawn.
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
        learned: Learned | None = None,
    ) -> None:
        self.config = config
        self.models = models
        self.knowledge = knowledge
        self.refused = refused or {}
        self.learned = learned or Learned()
        self.missing: Modality = missing
        self.observed = opposite(missing)
        self.rounds = config.generation.rounds
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
        if not any(self.grounded):
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
        """Rows that wait for the generator."""
        return [row for row in self.rows if not row.settled and row.error is None]

    def generate(self) -> list[Generated]:
        """Ask the generator for the next candidates of every open row, and wait for them."""
        return self.ask().gather()

    def ask(self) -> Asked:
        """Ask the generator for the next candidates of every open row; their answers come in order.

        What is under way needs no picture any more: this block lets them go.
        """
        rows = self.open_rows()
        if not rows:
            return Asked.answered([])
        numbers = [range(row.drawn, self._end(row)) for row in rows]
        seeds = [
            [derive_seed(self.config.run.seed, row.id, n, row.attempt) for n in own]
            for row, own in zip(rows, numbers, strict=True)
        ]
        requests = [
            requests_of(
                row, self.missing, self.needs, own, drawn_by, self.grounded[own.start : own.stop]
            )
            for row, own, drawn_by in zip(rows, numbers, seeds, strict=True)
        ]
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
                joined_answer(row, self.component, own, [next(left) for _ in range(count)])
                for row, own, count in zip(rows, seeds, counts, strict=True)
            ]

        return asked.then(by_row)

    def _end(self, row: Row) -> int:
        """How many candidates of its attempt a row has after its next round."""
        return next(end for end in self.rounds if end > row.drawn)

    def example_bytes(self) -> int:
        """Bytes of the examples' pictures as they are stored."""
        pairs = {one.pair.row: one.pair.encoded for row in self.rows for one in row.examples}
        return sum(len(encoded or b"") for encoded in pairs.values())

    def judge(self, answers: Sequence[Generated]) -> None:
        """Judge what `generate` gave, and settle each row whose best is good enough."""
        rows = self.open_rows()
        answers = [as_written(answer, self.image_format) for answer in answers]
        made = [c for answer in answers for c in answer.candidates]
        embeddings, faults = embedded(self.models, made, self.missing)
        start = 0
        for row, answer in zip(rows, answers, strict=True):
            row.drawn = self._end(row)
            if answer.error is not None and answer.error not in row.lacking:
                row.lacking.append(answer.error)
            span = range(start, start + len(answer.candidates))
            start = span.stop
            if not answer.candidates and not row.of_attempt():
                row.error = answer.error or "the generator gave no candidate"
                continue
            own = {place - span.start: faults[place] for place in span if place in faults}
            no_more = refused(answer.candidates, self.refused.get(row.id, ()), self.image_format)
            row.tried += drawn(
                row.attempt, answer.candidates, embeddings[span.start : start], own, no_more
            )
            self._settle(row, failed=not answer.candidates)

    def _settle(self, row: Row, failed: bool) -> None:
        """Choose the best of an attempt's candidates, and see whether more are to be drawn.

        `failed`: the generator has just given none.
        """
        tried = row.of_attempt()
        offset = len(row.tried) - len(tried)
        row.tried[offset:], found = judged(row, tried, self.missing, self._selector(row))
        row.chosen = None if found.chosen is None else offset + found.chosen
        reason = found.reason
        last = failed or row.drawn == self.rounds[-1]
        last = last or (row.chosen is not None and not self._pays(row))
        if row.chosen is not None and last:
            reason = self._doubt(row)
            row.settled = row.chosen is not None
        if row.settled or not last:
            return
        lacking = (f"others failed: {why}" for why in row.lacking)
        row.faults.append("; ".join([f"attempt {row.attempt}: {reason}", *lacking]))
        row.turn, row.drawn, row.lacking = row.turn + 1, 0, []
        row.settled = row.turn == self.config.generation.attempts

    def _selector(self, row: Row) -> Selector:
        """What chooses among a row's candidates, by weights that were learned where there are such."""
        selector = self.knowledge.selector_of(row.id)
        if self.learned.weights is None:
            return selector
        scoring = self.config.scoring[self.missing].fixed(self.learned.weights)
        return selector.weighing(self.missing, scoring)

    def _pays(self, row: Row) -> bool:
        """Whether one more candidate is expected to be worth it; yes, where that is not known."""
        price = self.config.generation.min_improvement
        if price is None or self.learned.stopping is None:
            return True
        return self.learned.stopping.of(state_of(row.of_attempt())) >= price

    def _doubt(self, row: Row) -> str | None:
        """Say what is expected of a row's choice; where that is too little it is none, and why."""
        if self.learned.calibration is None:
            return None
        [found] = self.learned.calibration.of(evidence_of(row)[None])
        floor = self.config.scoring[self.missing].floor_confidence
        if floor is not None and found.expected < floor:
            row.chosen = None
            return f"below floor: confidence {found.expected:.3f} < floor_confidence {floor:g}"
        row.confidence = found
        return None
