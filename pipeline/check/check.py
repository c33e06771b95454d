"""The check of a run: planned, done and summed up, in a place of its own beside the completed dataset.

`check/text` and `check/image` in the run's folder each have a ledger and parts like the run's own, and
`figures.json` with what was found. Pairs are kept by content and settings as rows are: a run with nothing
new completes none, one that was killed goes on where it was, and where settings change other pairs are
drawn. Their shards are of one block, so that the workers of an engine share them; they come before the
rows of their half, whose confidence is told by them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import MODALITIES, Modality
from kb.fitting import HELD_OUT
from kb.mapping.held_out import HeldOut
from kb.pairs import read_pairs
from pipeline.check.apart import KnowledgeApart
from pipeline.check.calibrating import FEWEST
from pipeline.check.choosing import Choice, choose
from pipeline.check.figures import told, verdict
from pipeline.check.portion import CheckedParts
from pipeline.check.summing import sum_up
from pipeline.completion.learned import Learned
from pipeline.completion.portion import Parts
from pipeline.completion.sent import SentShards
from pipeline.completion.shard import RowsDone
from pipeline.config.config import Config
from pipeline.config.dependencies import row_dependencies
from pipeline.config.run import CHECKED_SHARE, FEWEST_CHECKED
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.settings import INTERNAL
from pipeline.knowledge.standing import STANDARDS, StandingKnowledge
from pipeline.ledger.comparison import ATTEMPTS, compare
from pipeline.ledger.ledger import Ledger, Manifest
from pipeline.ledger.plan import ShardPlan, make_plan
from pipeline.storage.digests import digest
from pipeline.storage.files import read_json, write_whole
from pipeline.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

FIGURES = "figures.json"
HIDDEN = "hidden for the check"
NO_PAIRS = pa.table(
    {
        "id": pa.array([], pa.string()),
        "image_digest": pa.array([], pa.uint64()),
        "text_digest": pa.array([], pa.uint64()),
    }
)


class Check:
    """The check of a run's config.

    Parameters
    ----------
    parts : Parts
        What rows of the run meet; their `knowledge` is the standing one.
    knowledge : StandingKnowledge
    home : RunFolder

    Attributes
    ----------
    config : Config
        The run's without floors of confidence: no checked pair is told one, and a floor that is set once
        the check is known leaves it as it is. All candidates that may be are drawn, and scored by fixed
        weights, so that what one more gains, and what other weights would choose, is known.
    planned : dict
        Shards to be done, by half; `plan` fills it.
    """

    def __init__(self, parts: Parts, knowledge: StandingKnowledge, home: RunFolder) -> None:
        self._given = parts.config
        self.config = _as_checked(parts.config)
        self._knowledge = knowledge
        apart = KnowledgeApart(
            knowledge, self.config.evaluation.duplicate_cosine, self.config.run.seed
        )
        self.parts = {
            half: CheckedParts(self.config, parts.sources, parts.models, apart, apart, half)
            for half in self.config.made
        }
        self._shards = {half: SentShards(own, home) for half, own in self.parts.items()}
        self._chosen: dict[Modality, Choice] = {}
        self.planned: dict[Modality, list[ShardPlan]] = {}
        self._lacking: dict[Modality, int] = {}

    def plan(
        self,
        catalog: Catalog,
        rows: Mapping[Modality, int],
        run_id: str,
        retry_failed: bool = False,
    ) -> None:
        """Choose the pairs, and cut those that are not done to shards.

        Parameters
        ----------
        catalog : Catalog
            Of the dataset.
        rows : mapping
            By half, rows that lack it and are completed once this run is done.
        run_id : str
        retry_failed : bool
        """
        run, version = self.config.run, self._knowledge.version
        self._lacking = dict(rows)
        for half, parts in self.parts.items():
            settings = row_dependencies(self.config, parts.models.identity, version, [half])
            choice = self._chosen[half] = self._choose(half, rows[half], settings[half])
            wanted = _hidden(catalog.table, choice.ids, half)
            ledger = Ledger(parts.folder).load()
            compared = compare(wanted, ledger, settings, retry_failed=retry_failed)
            size = min(run.shard_size, run.block_size)
            made = make_plan(wanted, ledger, compared, settings, size, run_id)
            self.planned[half] = [replace(shard, checks=True) for shard in made.shards]

    def _choose(self, half: Modality, rows: int, settings: Mapping[str, str]) -> Choice:
        run = self.config.run
        count = run.checked(rows)
        if not count:
            return Choice(
                why=f"off: {CHECKED_SHARE:.0%} of the {rows} rows that lack it is fewer than"
                f" {FEWEST_CHECKED} pairs; run.check: N checks so many",
                off=True,
            )
        taken: list[str] = []
        if half == "image":
            taken = (read_json(self.config.folder / STANDARDS) or {}).get("pairs", [])
        own = {name: value for name, value in settings.items() if name != ATTEMPTS}
        purpose = json.dumps([half, run.seed, own], sort_keys=True)
        pairs, predicted = self._pairs()
        return choose(pairs, predicted, taken, count, purpose)

    def _pairs(self) -> tuple[pa.Table, list[str]]:
        """The dataset's pairs that stand in the knowledge base as they did at its fit, and the ids of those
        that mappings without them predicted."""
        folder = self._knowledge.folder
        held_out = HeldOut.load(folder / HELD_OUT)
        if held_out is None or not self._knowledge.stands:
            return NO_PAIRS, []
        pairs = read_pairs(folder / "pairs.arrow").select(
            [*NO_PAIRS.column_names, "source", "added"]
        )
        at_fit = pc.and_(pc.equal(pairs["source"], INTERNAL), pc.equal(pairs["added"], 0))
        return pairs.filter(at_fit), list(held_out.ids)

    def complete(
        self,
        plan: ShardPlan,
        rows_done: RowsDone | None = None,
        answered: Callable[[int], None] | None = None,
    ) -> Manifest:
        """Do one of the shards; see `pipeline.completion.shard.Shards.complete`."""
        assert plan.missing is not None
        after = [one for one in self.planned.get(plan.missing, []) if one.number > plan.number]
        return self._shards[plan.missing].complete(plan, after, rows_done, answered)

    def begin(self) -> None:
        """Clear what a killed run left. Needs the run's lock."""
        for parts in self.parts.values():
            if parts.folder.is_dir():
                Ledger(parts.folder).load().sweep()

    def close(self) -> None:
        """Let go what is under way."""
        for shards in self._shards.values():
            shards.close()

    def settle(self, half: Modality, catalog: Catalog) -> Mapping[str, Any] | None:
        """Sum up what was found, unless that stands; see `learned`.

        Needs the run's lock, and all shards of the half done.
        """
        if half in self.parts:
            self._settle(half, catalog)
            self._warn(half)
        return self.learned(half)

    def _settle(self, half: Modality, catalog: Catalog) -> None:
        folder, choice = self.parts[half].folder, self._chosen[half]
        path = folder / FIGURES
        if self.config.run.check == 0:
            path.unlink(missing_ok=True)
            return
        ledger = Ledger(folder).load()
        generation = self._given.generation
        given = str(generation.n), str(generation.second_look), *self._given.scoring[half].automatic
        of = digest(ledger.version(), choice.why or "", repr(given), *sorted(choice.ids))
        if (read_json(path) or {}).get("of") == of:
            return
        found: dict[str, Any] = {"figures": {"checked": 0, "why": choice.why, "off": choice.off}}
        if choice.ids:
            standards = self._knowledge.selector.standards
            found = sum_up(half, ledger, choice.ids, catalog, self._given, standards)
        summed = found["figures"]
        summed |= {"told": told(half, summed), "verdict": verdict(half, summed)}
        write_whole(path, json.dumps({"of": of} | found, indent=1, ensure_ascii=False))
        _tidy(ledger, choice.ids)

    def learned(self, half: Modality) -> Mapping[str, Any] | None:
        """What rows of a half are told by (`pipeline.completion.learned`), as JSON holds it."""
        held: Mapping[str, Any] | None = self.held(half).get("learned")
        return held

    def held(self, half: Modality) -> Mapping[str, Any]:
        """What stands of a half's check."""
        if half not in self.parts or self.config.run.check == 0:
            return {}
        return read_json(self.parts[half].folder / FIGURES) or {}

    def figures(self) -> dict[str, dict[str, Any]]:
        """The figures that stand, by half; see `pipeline.check.figures`."""
        found = {half: self.held(half).get("figures") for half in MODALITIES}
        return {half: dict(one) for half, one in found.items() if one is not None}

    def version(self) -> str:
        """A digest that changes with what was found."""
        return digest(*(str(self.held(half).get("of")) for half in MODALITIES))[:16]

    def stops(self, half: Modality, checked: int) -> bool:
        """Whether rows will stop where one more candidate doesn't pay, once so many pairs are checked."""
        rule = Learned.parse(self.learned(half)).stopping
        return rule is not None or checked >= FEWEST

    def _warn(self, half: Modality) -> None:
        """Say so where too few pairs were checked for what is set."""
        if not self._lacking.get(half):
            return
        name, known = "caption" if half == "text" else "image", Learned.parse(self.learned(half))
        scoring, generation = self._given.scoring[half], self._given.generation
        chosen = self._chosen[half]
        why = f"the check is {chosen.why}" if chosen.off else "the check held too few pairs"
        if scoring.floor_confidence is not None and known.calibration is None:
            logger.warning("selection.%s.floor_confidence rejects nothing: %s", name, why)
        if scoring.automatic and len(chosen.ids) < FEWEST:
            weights = ", ".join(scoring.automatic)
            logger.warning("selection.%s: %s not learned: %s", name, weights, why)
        if generation.second_look is not None and not self._given.drawn_again(half):
            logger.warning("generation.second_look: no %s: its generator takes no examples", half)
        elif generation.second_look is not None and known.looking is None:
            logger.warning("generation.second_look: no %s is looked at again: %s", half, why)
        if generation.least < generation.most and known.stopping is None:
            logger.warning(
                "generation.n: %d candidates are drawn for every %s: %s", generation.most, half, why
            )


def _as_checked(config: Config) -> Config:
    scoring = {
        name: getattr(config.selection, name).fixed().model_copy(update={"floor_confidence": None})
        for name in ("caption", "image")
    }
    look = config.generation.second_look
    if look is not None:
        # Whatever is expected of a pair: what the others would have gained is known then too.
        drawn = look.candidates or config.generation.least
        look = look.model_copy(update={"below": math.inf, "candidates": drawn})
    generation = config.generation.model_copy(
        update={"n": config.generation.most, "second_look": look}
    )
    selection = config.selection.model_copy(update=scoring)
    return config.model_copy(update={"selection": selection, "generation": generation})


def _hidden(table: pa.Table, ids: list[str], half: Modality) -> pa.Table:
    """Complete rows of a catalog as if they lacked a half."""
    rows = table.filter(pc.is_in(table["id"], pa.array(ids, pa.string())))
    for name, value in (("missing", half), (f"{half}_reason", HIDDEN)):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, name, pa.array([value] * len(rows), pa.string()))
    return rows


def _tidy(ledger: Ledger, ids: list[str]) -> None:
    """Drop shards of which no pair counts any more."""
    wanted = set(ids)
    for manifest in ledger.newest_first():
        own = wanted & set(manifest.rows["id"].to_pylist())
        if not own:
            ledger.drop(manifest.shard)
        wanted -= own
    ledger.sweep()
