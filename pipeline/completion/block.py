"""A block of incomplete rows on its way: grounded, answered by the generator, judged.

What a generator needs stands before it is asked, and what follows needs it no more, so that
`pipeline.completion.shard` can do both for other blocks while a generator works on one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from generators.asked import Asked, submit
from generators.base import Generated, derive_seed, needs_of
from kb.embeddings import Modality, opposite
from pipeline.completion.asking import joined_answer, requests_of
from pipeline.completion.evidence import evidence_of, state_of
from pipeline.completion.grounding import grounds_of, others_of
from pipeline.completion.halves import decode_pictures
from pipeline.completion.judging import better, drawn, embedded, judged, refused
from pipeline.completion.learned import Learned
from pipeline.completion.row import Row
from pipeline.completion.written import as_written
from pipeline.config.config import Config
from pipeline.knowledge.seen import Knowledge
from pipeline.ledger.ledger import Entry
from pipeline.models.item_errors import embed_each
from pipeline.models.loaded import LoadedModels
from selection.judgement import Judged
from selection.scoring import Selector

NONE = Judged((), None)


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
        none; where it is not known when one more candidate pays, all that may be are drawn, and where it is
        not known what is expected of a row after its first look, it gets no second one.
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
        self.again = config.generation.look_of(missing, self.needs)
        self.drawn_again = config.generation.drawn_again(missing, self.needs)
        # By its number; those of a second look come last.
        self.grounded = config.generation.grounded_of(missing, self.needs)
        self.grounded += (True,) * self.drawn_again
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
        for row, embedding in zip(rows, embeddings, strict=True):
            row.embedding = embedding
        ids = [row.id for row in rows]
        predicted = self.knowledge.pseudo(embeddings, observed, ids)
        if predicted is not None:
            for row, pseudo in zip(rows, predicted, strict=True):
                row.pseudo = pseudo
        if not any(self.grounded):
            return
        found = self.knowledge.retrieve(embeddings, observed, ids)
        texts = [row.embedding if observed == "text" else row.pseudo for row in rows]
        shown = grounds_of(rows, found, texts, self.knowledge, self.models, self.needs)
        for row, examples in zip(rows, shown, strict=True):
            row.examples = examples

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
        """How many candidates of its attempt a row has after its next round, or its second look."""
        if row.second_look:
            return self.rounds[-1] + self.drawn_again
        return next(end for end in self.rounds if end > row.drawn)

    def example_bytes(self) -> int:
        """Bytes of the examples' pictures as they are stored."""
        pairs = {one.pair.row: one.pair.encoded for row in self.rows for one in row.retrieved}
        return sum(len(encoded or b"") for encoded in pairs.values())

    def judge(self, answers: Sequence[Generated]) -> None:
        """Judge what `generate` gave, and settle each row whose best is good enough."""
        rows = self.open_rows()
        answers = [as_written(answer, self.image_format) for answer in answers]
        made = [c for answer in answers for c in answer.candidates]
        embeddings, faults = embedded(self.models, made, self.missing)
        start = 0
        ended: list[tuple[Row, str | None]] = []
        for row, answer in zip(rows, answers, strict=True):
            row.drawn = self._end(row)
            if answer.error is not None and answer.error not in row.lacking:
                row.lacking.append(answer.error)
            span = range(start, start + len(answer.candidates))
            start = span.stop
            if not answer.candidates and not (row.second_look or row.of_look()):
                row.error = answer.error or "the generator gave no candidate"
                continue
            own = {place - span.start: faults[place] for place in span if place in faults}
            no_more = refused(answer.candidates, self.refused.get(row.id, ()), self.image_format)
            new = embeddings[span.start : start]
            row.tried += drawn(row.attempt, answer.candidates, new, own, no_more, row.second_look)
            over, reason = self._choose(row, failed=not answer.candidates)
            if over:
                ended.append((row, reason))
        again = self._look_again([row for row, _ in ended if self._is_doubted(row)])
        for row, reason in ended:
            if row.id not in again:
                self._settle(row, reason)

    def _choose(self, row: Row, failed: bool) -> tuple[bool, str | None]:
        """Choose the best so far; whether the look is over with that, and why there is none.

        `failed`: the generator has just given none.
        """
        tried, found = row.of_look(), NONE
        if tried:
            offset = len(row.tried) - len(tried)
            row.tried[offset:], found = judged(row, tried, self.missing, self._selector(row))
        chosen = None if found.chosen is None else offset + found.chosen
        if row.second_look:
            if chosen is not None:
                row.looks.append(chosen)
                row.chosen = better(row.tried, row.looks)
            elif failed:
                row.note(
                    f"the second look failed: {row.lacking[-1] if row.lacking else 'nothing came'}"
                )
            return True, None
        row.chosen = chosen
        last = failed or row.drawn == self.rounds[-1]
        last = last or (chosen is not None and not self._pays(row))
        if last and chosen is not None:
            row.looks.append(chosen)
        return last, found.reason

    def _is_doubted(self, row: Row) -> bool:
        """Whether too little is expected of a row's choice after its first look."""
        if self.again is None or row.second_look or row.chosen is None:
            return False
        if math.isinf(self.again.below):
            return True
        if self.learned.looking is None:
            return False
        [found] = self.learned.looking.of(evidence_of(row, row.chosen)[None])
        return found.expected < self.again.below

    def _look_again(self, rows: Sequence[Row]) -> set[str]:
        """Retrieve other pairs for rows; the ids of those for which there are any."""
        if self.again is None or not rows:
            return set()
        count, meets = self.again.examples, (self.knowledge, self.models, self.needs)
        others = others_of(rows, self.observed, count, *meets)
        found = [(row, examples) for row, examples in zip(rows, others, strict=True) if examples]
        for row, examples in found:
            row.look_again(examples, self.rounds[-1])
        return {row.id for row, _ in found}

    def _settle(self, row: Row, reason: str | None) -> None:
        """Settle a row, or begin its next attempt where it has no choice, and `reason` says why."""
        if row.chosen is not None:
            reason = self._doubt(row, row.chosen)
            row.settled = row.chosen is not None
        if row.settled:
            return
        lacking = (f"others failed: {why}" for why in row.lacking)
        row.faults.append("; ".join([f"attempt {row.attempt}: {reason}", *lacking]))
        row.try_again()
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
        return self.learned.stopping.of(state_of(row.of_look())) >= price

    def _doubt(self, row: Row, chosen: int) -> str | None:
        """Say what is expected of a row's choice; where that is too little it is none, and why."""
        if self.learned.calibration is None:
            return None
        [found] = self.learned.calibration.of(evidence_of(row, chosen)[None])
        floor = self.config.scoring[self.missing].floor_confidence
        if floor is not None and found.expected < floor:
            row.chosen = None
            return f"below floor: confidence {found.expected:.3f} < floor_confidence {floor:g}"
        row.confidence = found
        return None
