"""One world to retrieve from, fitted once: every way to choose mapping and retrieval is tried on it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from kb import contents
from kb.embeddings import MODALITIES, Modality, opposite, sample_rows
from kb.fitting import external_side
from kb.index import EmbeddingIndex
from kb.mapping import MappingSettings
from kb.mapping.candidates import make, names, tier
from kb.mapping.contest import Contest
from kb.mapping.regressors import Regressor
from kb.pairs import Pairs, read_pairs
from kb.purification import purify
from kb.recipe import KnowledgeBaseSettings
from kb.retrieval import FusionRetriever, Neighbours, RetrievalSettings
from kb.retrieval.learned import FUSIONS
from kb.retrieval.leave_one_out import (
    CANDIDATE_ALPHA,
    LeaveOneOut,
    Point,
    judge_examples,
    select_retrieval,
)
from pipeline.check.captions import cider_d
from tests.benchmarks.kb_photographs import pairs_of
from tests.benchmarks.kb_worlds import Captioned

# Internal pairs that choices are made by at most, where the knowledge base takes 2,000.
JUDGES = 400
Quality = dict[Modality, np.ndarray]


class Chosen(NamedTuple):
    """How a way came to retrieve."""

    mapping: dict[Modality, str]
    retrieval: RetrievalSettings


class Cell:
    """One world, purified, indexed, and its mappings compared; every way shares these."""

    def __init__(
        self,
        internal_pairs: Captioned,
        external_pairs: Captioned,
        asked_by: Captioned,
        shared_space: bool,
        networks: bool,
    ) -> None:
        own, external, asked = (
            drawn.halves for drawn in (internal_pairs, external_pairs, asked_by)
        )
        self.captions = {"own": internal_pairs.captions, "web": external_pairs.captions}
        self.truth = asked_by.captions
        internal = pairs_of(own, "own")
        self.settings = MappingSettings()
        held = internal.groups()
        judges = sample_rows(len(internal), JUDGES, 0)
        pairs, self.embeddings, side = _purified(internal, pairs_of(external, "web"))
        indexes = {m: EmbeddingIndex.build(self.embeddings[m]) for m in MODALITIES}
        self.retriever = FusionRetriever(
            self.embeddings, indexes, contents.id_array(pairs), None, None, shared_space,
            contents.digest_arrays(pairs),
        )  # fmt: skip
        self.own, self.asked, self.external, self.groups = own, asked, side, held
        open_ = [n for n in names(self.settings, side) if networks or n not in ("blend", "mlp")]
        if not shared_space:
            open_.remove("start")
        self.contest = Contest.hold(
            {name: partial(self._make, name) for name in open_},
            own, held, judges, self.settings.folds, 0,
        )  # fmt: skip
        self.models: dict[str, Regressor] = {}
        self.judged: dict[Any, np.ndarray] = {}
        ids = internal.table["id"].take(pa.array(judges)).to_pylist()
        judging = {m: own[m][judges] for m in MODALITIES}
        self.trials = LeaveOneOut(
            self.retriever, judging, ids, {m: d[judges] for m, d in internal.digests.items()}
        )
        self.unseen = LeaveOneOut(
            self.retriever, asked, [f"asked-{n}" for n in range(len(asked["image"]))]
        )

    def _make(self, name: str, fitted: Mapping[str, Regressor]) -> Regressor:
        return make(name, self.settings, "cpu", self.external, fitted)

    def predict(self, name: str, source: Modality) -> np.ndarray:
        """Of the rows to ask by, by a mapping that is fitted to all pairs."""
        if name not in self.models:
            model = self._make(name, self.models)
            self.models[name] = model.fit(self.own, 0, self.groups)
        return self.models[name].predict(self.asked[source], source)

    def choose(self, kinds: tuple[bool, bool], asked: dict[str, Any]) -> Chosen:
        """Mapping and retrieval by the rules of the knowledge base, among some candidates."""
        external, attention = kinds
        self.retriever.settings = RetrievalSettings(**asked)
        points = tuple(self.trials.points())
        rows = {
            name: predicted
            for name, predicted in self.contest.predictions.items()
            if (external or "+" not in name) and (attention or tier(name) < 2)
        }
        contest = Contest(rows, self.contest.scores)
        mapping: dict[Modality, str] = {}
        for modality in MODALITIES:
            for name in rows:
                key = (name, modality, repr(points))
                if key not in self.judged:
                    one = {name: rows[name][modality]}
                    self.judged[key] = judge_examples(self.trials, modality, one)[name]
            quality = {n: self.judged[n, modality, repr(points)] for n in rows}
            mapping[modality] = contest.best(modality, quality)
        return Chosen(mapping, select_retrieval(self.trials, self.held(mapping))[0])

    def held(self, mapping: Mapping[Modality, str]) -> dict[Modality, np.ndarray | None]:
        """Predictions of the internal pairs, out of fold; None where the mapping says nothing."""
        return {
            m: None
            if self.contest.says_nothing(m, mapping[m])
            else self.contest.predictions[mapping[m]][m]
            for m in MODALITIES
        }

    def quality(self, chosen: Chosen) -> Quality:
        """Of the rows to ask by, per observed modality [n]."""
        settings = chosen.retrieval
        alpha = float(settings.alpha) if settings.mode == "fusion" else np.nan
        point = Point(settings.mode, int(settings.k), alpha, float(settings.consensus))
        return {m: self.unseen.quality(m, [point], self.asking(chosen, m))[point][:, 0]
                for m in MODALITIES}  # fmt: skip

    def asking(self, chosen: Chosen, modality: Modality) -> np.ndarray | None:
        """What is predicted of the rows to ask by."""
        name = chosen.mapping[modality]
        nothing = self.contest.says_nothing(modality, name)
        return None if nothing else self.predict(name, modality)

    def cider(self, chosen: Chosen, rows_asked: int = 300) -> np.ndarray:
        """CIDEr-D of the first rows' examples' captions against all those of the picture, [n]."""
        settings = chosen.retrieval.model_copy(update={"examples": 1})
        rows = self._found(settings, "image", chosen).rows[:rows_asked, 0]
        found = []
        for row_id in self.retriever.ids.take(pa.array(rows)).to_pylist():
            source, number = row_id.rsplit("-", 1)
            found.append(self.captions[source][int(number)][0])
        return cider_d(found, self.truth[:rows_asked])

    def _found(self, settings: RetrievalSettings, modality: Modality, chosen: Chosen) -> Neighbours:
        """What a retriever with these settings finds for the rows to ask by."""
        guess = self.asking(chosen, modality)
        if guess is None:
            settings = settings.model_copy(update={"mode": "intra"})
        # Asks for nothing but what is said here, since the predictions are given.
        says = None if guess is None else SimpleNamespace(constant_={modality: False})
        finder = FusionRetriever(
            self.embeddings, self.retriever.indexes, self.retriever.ids, cast("Any", says), settings,
            self.retriever.shared_space, self.retriever.digests,
        )  # fmt: skip
        return finder.search(self.asked[modality], modality, pseudo=guess)

    def all_rows(self, chosen: Chosen) -> tuple[Quality, Chosen]:
        """Fusion over all pairs, its alpha measured."""
        count = len(self.retriever.ids)
        points = [Point("fusion", count, alpha) for alpha in CANDIDATE_ALPHA]
        pseudo = self.held(chosen.mapping)
        found = {m: self.trials.quality(m, points, pseudo[m]) for m in MODALITIES}
        best = max(points, key=lambda p: sum(float(np.nanmean(found[m][p])) for m in MODALITIES))
        taken = Chosen(
            chosen.mapping,
            RetrievalSettings(mode="fusion", k=count, alpha=best.alpha, consensus=0),
        )
        return self.quality(taken), taken

    def learned(self, chosen: Chosen) -> dict[str, Quality]:
        """The learned fusions over the same candidates as the score, trained on the internal pairs."""
        found: dict[str, Quality] = {name: {} for name in FUSIONS}
        k, alpha = int(chosen.retrieval.k), float(chosen.retrieval.alpha)
        pseudo = self.held(chosen.mapping)
        for modality in MODALITIES:
            other = opposite(modality)
            held, guess = pseudo[modality], self.asking(chosen, modality)
            if held is None or guess is None:
                for fusion in found.values():
                    fusion[modality] = self.quality(chosen)[modality]
                continue
            (trained, truth), (asked, _) = (
                self.trials.candidates(modality, k, held),
                self.unseen.candidates(modality, k, guess),
            )
            for name, make_fusion in FUSIONS.items():
                best = make_fusion().fit(trained, truth, alpha).score(asked).argmax(axis=1)
                rows = asked.rows[np.arange(len(best)), best]
                found[name][modality] = _like(self.embeddings[other], rows, self.asked[other])
        return found

    def several(self, chosen: Chosen, diversity: float, m: int = 3) -> tuple[Quality, Quality]:
        """Of m examples that differ the best one's likeness to the truth, and the mean one's."""
        best, mean = {}, {}
        settings = chosen.retrieval.model_copy(update={"examples": m, "diversity": diversity})
        for modality in MODALITIES:
            rows = self._found(settings, modality, chosen).rows
            other = opposite(modality)
            found = [_like(self.embeddings[other], r, self.asked[other]) for r in rows.T]
            best[modality], mean[modality] = np.max(found, axis=0), np.mean(found, axis=0)
        return best, mean


def _like(held: np.ndarray, rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", held[rows].astype(np.float32), truth)


def _purified(internal: Pairs, external: Pairs) -> tuple[Any, dict[Modality, np.ndarray], Any]:
    """The pairs of a knowledge base, their embeddings in memory, and the external side of a fit."""
    settings = KnowledgeBaseSettings()
    clean = purify(internal.embeddings, external.embeddings, settings.filter, settings.alignment,
                   0, "cpu", internal.groups())  # fmt: skip
    sides = [
        contents.Side(internal, "internal"),
        contents.Side(external, "external", clean.verdicts.kept, clean.fitted.alignments),
    ]
    with tempfile.TemporaryDirectory() as folder:
        widths = {m: int(internal.embeddings[m].shape[1]) for m in MODALITIES}
        contents.write_contents(Path(folder), sides, widths, 0)
        pairs = read_pairs(Path(folder) / "pairs.arrow")
        stored = contents.open_contents(Path(folder))
        side = external_side(pairs, stored, internal, 0)
        return pairs, {m: np.array(rows) for m, rows in stored.items()}, side
