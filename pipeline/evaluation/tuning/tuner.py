"""Tuning: k, α, τ and λ for a dataset, measured on a share of its own pairs, with the evidence.

The share's halves are hidden, and the rest is the knowledge base. Of the hidden rows one half chooses
a value, the other half confirms it: a setting is changed only where the 95 % interval of its gain over
what the config has lies above zero there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kb.embeddings import MODALITIES, Modality
from kb.filtering import NO_THRESHOLD
from kb.retrieval.leave_one_out import CANDIDATE_ALPHA, CANDIDATE_K, LeaveOneOut, Point
from pipeline.check.intervals import paired
from pipeline.config.config import Config
from pipeline.config.variants import Variant
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.protocol.split import first, flat, in_groups
from pipeline.evaluation.protocol.world import World
from pipeline.evaluation.runs import Arm, Runs
from pipeline.evaluation.tuning.trials import Trial, Tuned
from pipeline.job import Job
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import write_whole
from pipeline.storage.lock import hold

logger = logging.getLogger(__name__)

# Hidden rows in each half of the share, below which nothing could be confirmed.
FEWEST_ROWS = 10
CANDIDATE_LAMBDA2 = (0.0, 0.1, 0.3, 1.0)
# Thresholds tried around the measured ones.
STEPS_OF_TAU = (-0.1, -0.05, 0.05, 0.1)

CONFIGURED = Variant("configured", "the config as it is")
K, ALPHA = "knowledge_base.retrieval.k", "knowledge_base.retrieval.alpha"
TAU = ("knowledge_base.filter.tau_cent", "knowledge_base.filter.tau_inst")


class Tuner:
    """Tunes a config.

    Parameters
    ----------
    config : Config
    share : float
        Share of the complete pairs whose halves are hidden.
    rows : int
        Pairs that are hidden at most.
    progress : Progress
    """

    def __init__(
        self, config: Config, share: float = 0.3, rows: int = 400, progress: Progress = quiet
    ) -> None:
        self.config = config
        self.share = share
        self.rows = rows
        self.progress = progress
        self.folder = config.folder / "tuning"
        self.world = World(config, self.folder, progress, tested=False)
        self.runs = Runs(config, self.world, progress)

    def run(self) -> Tuned:
        """Try everything; writes `tuning/tuning.json`.

        Raises
        ------
        ConfigError
            Too few complete pairs.
        RunLocked
            The config is being tuned already.
        """
        with hold(self.folder, "tune"):
            pairs = len(self.world.train)
            share = min(self.share, self.rows / max(pairs, 1))
            if share * pairs < 2 * FEWEST_ROWS:
                raise ConfigError(
                    f"tune: needs {2 * FEWEST_ROWS} pairs to hide; a share of {self.share:g} of"
                    f" {pairs} complete pairs is {round(share * pairs)}"
                )
            self.masked = self.world.masks([round(share, 6)])[0]
            self._deal()
            tuned = Tuned(len(self.ids), pairs)
            changes: dict[str, Any] = {}
            steps = [self._retrieval, self._filter]
            if self.world.views.judge_selects:
                tuned.skipped = (
                    "selection.*.lambda2: not tried, for the encoder that selects would judge"
                    " itself; set evaluation.judge to another"
                )
            else:
                steps += [self._captions, self._images]
            for step in steps:
                trial = step(changes)
                if trial is not None:
                    tuned.trials.append(trial)
                    changes |= trial.changes
            write_whole(
                self.folder / "tuning.json", json.dumps(tuned.answer(), indent=1, default=float)
            )
            return tuned

    def _deal(self) -> None:
        """Deal the hidden rows into those that choose and those that confirm.

        Raises
        ------
        ConfigError
            Too few of them share no picture or text.
        """
        names = self.world.views.groups
        groups = in_groups(self.masked.hidden, self.config.run.seed, "tune", names)
        if len(groups) < 2 * FEWEST_ROWS:
            raise ConfigError(
                f"tune: needs {2 * FEWEST_ROWS} pairs to hide that share no picture or text;"
                f" {len(self.masked.hidden)} hidden ones have {len(groups)}"
            )
        self.ids = flat(groups)
        # Rows of one group are not independent.
        self.groups = np.array([names[row_id] for row_id in self.ids])
        chosen = sum(map(len, first(groups, len(self.ids) // 2)))
        self.choosing = np.arange(len(self.ids)) < chosen

    def _job(self, changes: Mapping[str, Any], complete: bool = False) -> Job:
        """The config with changes, its knowledge base built and, if asked for, its rows completed."""
        point = json.dumps(dict(changes), sort_keys=True)
        arm = Arm(CONFIGURED, self.masked, point if changes else "", dict(changes))
        return self.runs.job_of(arm, complete)

    def _decide(
        self,
        settings: tuple[str, ...],
        figure: str,
        held: dict[str, Any],
        values: Sequence[tuple[dict[str, Any], np.ndarray]],
        usable: np.ndarray,
    ) -> Trial:
        """Choose on one half of the rows, confirm on the other; `values[0]` is what is held."""
        choosing, confirming = self.choosing & usable, ~self.choosing & usable
        means = [float(quality[choosing].mean()) for _, quality in values]
        best = int(np.argmax(means))
        gain = None
        if best > 0:
            better, held_now = values[best][1][confirming], values[0][1][confirming]
            gain = paired(better, held_now, self.groups[confirming].tolist())
        tried = [
            {"values": point, "quality": mean}
            for (point, _), mean in zip(values, means, strict=True)
        ]
        return Trial(settings, figure, held, tried, values[best][0], gain)

    def _quality(self, job: Job, points: Sequence[tuple[int, float]]) -> list[np.ndarray]:
        """Quality of retrieval by (k, α), in the job's mode: of each hidden pair, both halves' mean."""
        views, retriever = self.world.views, job.knowledge.checked().retriever
        mode, weight = str(retriever.settings.mode), float(retriever.settings.consensus)
        ways = [Point(mode, k, alpha, weight) for k, alpha in points]
        queries = {m: views.embeddings_of(self.ids, m, judge=False) for m in MODALITIES}
        trials = LeaveOneOut(retriever, queries, self.ids)
        found = []
        for modality in MODALITIES:
            pseudo = None
            if retriever.mapping is not None and not retriever.mapping.constant_[modality]:
                pseudo = retriever.mapping.map(queries[modality], source=modality)
            quality = trials.quality(modality, ways, pseudo)
            found.append([quality[way] for way in ways])
        return [np.mean(halves, axis=0) for halves in zip(*found, strict=True)]

    def _retrieval(self, changes: Mapping[str, Any]) -> Trial | None:
        """k and α of fusion retrieval, unless its fusion is learned for those that it has."""
        job = self._job(changes)
        retriever = job.knowledge.checked().retriever
        if retriever.settings.mode != "fusion" or retriever.fusions:
            return None
        own = (retriever.k, float(retriever.settings.alpha))
        ks, alphas = sorted({own[0], *CANDIDATE_K}), sorted({own[1], *CANDIDATE_ALPHA})
        points = list(dict.fromkeys([own, *((k, alpha) for k in ks for alpha in alphas)]))
        found = self._quality(job, points)
        return self._decide(
            (K, ALPHA),
            "cosine of the example's half to the hidden one",
            {K: own[0], ALPHA: own[1]},
            [({K: k, ALPHA: a}, values) for (k, a), values in zip(points, found, strict=True)],
            np.ones(len(self.ids), dtype=bool),
        )

    def _filter(self, changes: Mapping[str, Any]) -> Trial | None:
        """Both thresholds of the cluster filter, moved together."""
        settings = self.config.knowledge_base
        if not (self.config.external and settings.purify and "external" in settings.sources):
            return None
        job = self._job(changes)
        measured = (job.knowledge.checked().manifest["purification"] or {}).get("filter")
        if measured is None:
            return None
        own = measured["tau_cent"], measured["tau_inst"]
        points = [
            tuple(round(min(max(tau + step, NO_THRESHOLD), 1.0), 4) for tau in own)
            for step in STEPS_OF_TAU
        ]
        point_of = {K: changes.get(K), ALPHA: changes.get(ALPHA)}
        retriever = job.knowledge.checked().retriever
        k = int(point_of[K] or retriever.k)
        given = point_of[ALPHA]
        alpha = float(retriever.settings.alpha if given is None else given)
        values = [(dict(zip(TAU, own, strict=True)), self._quality(job, [(k, alpha)])[0])]
        for number, point in enumerate([(NO_THRESHOLD, NO_THRESHOLD), *points]):
            self.progress("tune the filter", number, 1 + len(points))
            tried = dict(zip(TAU, point, strict=True))
            # At the same k and α, so that the threshold alone makes the difference.
            built = self._job({**changes, K: k, ALPHA: alpha, **tried})
            values.append((tried, self._quality(built, [(k, alpha)])[0]))
        return self._decide(
            TAU,
            "cosine of the example's half to the hidden one",
            dict(zip(TAU, own, strict=True)),
            values,
            np.ones(len(self.ids), dtype=bool),
        )

    def _captions(self, changes: Mapping[str, Any]) -> Trial | None:
        return self._weight("text", "caption", changes)

    def _images(self, changes: Mapping[str, Any]) -> Trial | None:
        return self._weight("image", "image", changes)

    def _weight(self, missing: Modality, half: str, changes: Mapping[str, Any]) -> Trial | None:
        """λ₂ of a half's score; λ₁ stays, since only their ratio matters."""
        usable = np.array([self.masked.hidden[row_id] == missing for row_id in self.ids])
        both = (usable & self.choosing, usable & ~self.choosing)
        if min(len(set(self.groups[half])) for half in both) < 2:
            return None
        key = f"selection.{half}.lambda2"
        own = self.config.scoring[missing].fixed().weight("lambda2")
        values = []
        for weight in (own, *(w for w in CANDIDATE_LAMBDA2 if w != own)):
            job = self._job({**changes, key: weight} if weight != own else changes, complete=True)
            values.append(({key: weight}, self._chosen_quality(job, missing)))
        figure = f"cosine of the chosen {missing} to the hidden one"
        return self._decide((key,), figure, {key: own}, values, usable)

    def _chosen_quality(self, job: Job, missing: Modality) -> np.ndarray:
        """The judge's cosine of each row's generated half to the hidden one; 0 without one."""
        table = job.completed().to_table(columns=["id", "image", "text", "status"])
        made: dict[str, Any] = {}
        for row in table.to_pylist():
            if row["status"] == "completed" and self.masked.hidden[row["id"]] == missing:
                text = row["text"] if isinstance(row["text"], list) else [row["text"]]
                made[row["id"]] = row["image"]["bytes"] if missing == "image" else text
        quality = np.zeros(len(self.ids))
        if made:
            views = self.world.views
            # A half that can't be judged is worth as much as none.
            own, _ = views.judged_halves(missing, list(made.values()))
            truth = views.embeddings_of(list(made), missing, judge=True)
            place = {row_id: row for row, row_id in enumerate(self.ids)}
            rows = [place[row_id] for row_id in made]
            quality[rows] = np.einsum("nd,nd->n", own, truth)
        return quality
