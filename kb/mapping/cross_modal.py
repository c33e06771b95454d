"""Cross-modal mapping: the pseudo-embedding of a row's missing half, from its observed half."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from kb.embeddings import MODALITIES, Modality, Rows, normalise, opposite, sample_rows, take
from kb.mapping.attended import External
from kb.mapping.candidates import make, names
from kb.mapping.contest import HELD_OUT_ROWS, Contest, Judge
from kb.mapping.regressors import Regressor, Start
from kb.mapping.settings import MappingSettings, NoCompletePairs
from kb.mapping.shared_mlp import SharedMLP
from kb.storage import load_state, save_state

logger = logging.getLogger(__name__)


class CrossModalMapping:
    """Predicts text embeddings from image embeddings and the other way round.

    The candidates are compared by pairs that they did not see: by the examples that retrieval
    finds with what they predict, where there is a judge of that, else by how well they find the
    true half (`kb.mapping.contest`).

    Parameters
    ----------
    settings : MappingSettings
    random_state : int
        Seeds the folds, the MLP and the sample.
    device : str
        Where the MLP trains: auto, cpu, cuda.

    Attributes
    ----------
    chosen_ : dict
        Per source modality the name of the mapping used: start, ridge, blend, mlp or attended;
        ridge+W and attended+W are fitted to external pairs as well, each with the weight W.
    scores_ : dict
        Per source modality and candidate the figures of `kb.mapping.contest`, out of fold, and the
        `example` that a judge gave; `mean` is the mean of the other modality, `chance` the
        reciprocal rank of a guess. Empty where no contest was held.
    constant_ : dict
        Per source modality True where the prediction says nothing about the row: it finds the
        true half no better than chance.
    n_pairs_ : int
        Pairs it was fitted on, external ones aside.
    held_rows_ : int64 [r]
        Rows of the arrays given to `fit` that others are judged by: at most `HELD_OUT_ROWS`.
    out_of_fold_ : dict or None
        Per source modality the predictions for `held_rows_` by mappings that did not see the row,
        float32; not saved. None where no contest was held.
    losses_ : list of float
        Held-out loss of the network over its epochs; not saved. Empty where none is used.
    """

    def __init__(
        self,
        settings: MappingSettings | None = None,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.settings = settings or MappingSettings()
        self.random_state = random_state
        self.device = device
        self._external: External | None = None
        self._contest: Contest | None = None

    def fit(
        self,
        image_embeddings: Rows,
        text_embeddings: Rows,
        groups: np.ndarray | None = None,
        external: External | None = None,
    ) -> CrossModalMapping:
        """Learns both directions from complete pairs: `compare`, and `settle` by rank.

        Arguments and errors are those of `compare`.
        """
        return self.compare(image_embeddings, text_embeddings, groups, external).settle()

    def compare(
        self,
        image_embeddings: Rows,
        text_embeddings: Rows,
        groups: np.ndarray | None = None,
        external: External | None = None,
    ) -> CrossModalMapping:
        """Holds the contest; `out_of_fold_` and `chosen_` are of the best by rank until `settle`.

        Parameters
        ----------
        image_embeddings, text_embeddings : shapes [n, d_image] and [n, d_text]
            Row i of both belongs to pair i.
        groups : int [n], optional
            Pairs that share a half have equal numbers (`kb.groups`), and are held out together.
            By default no two do.
        external : External, optional
            External pairs, which may be fitted as well; none of them shares a half with one of
            these.

        Raises
        ------
        NoCompletePairs
            n is 0.
        ValueError
            The numbers of rows differ, or a row is not finite or all zero.
        """
        if len(image_embeddings) != len(text_embeddings):
            raise ValueError(
                "image and text embeddings must have one row a pair; "
                f"got {len(image_embeddings)} and {len(text_embeddings)}"
            )
        count = len(image_embeddings)
        if count == 0:
            raise NoCompletePairs(
                "no complete pair to learn from: the dataset needs rows with both an image and "
                "a text (32 or more to be of use)"
            )
        rows = np.arange(count, dtype=np.int64)
        if count > self.settings.sample:
            generator = np.random.default_rng(self.random_state)
            chosen = generator.choice(count, self.settings.sample, replace=False)
            rows = np.sort(chosen).astype(np.int64)
        self._pairs: dict[Modality, np.ndarray] = {
            "image": take(image_embeddings, rows),
            "text": take(text_embeddings, rows),
        }
        self.n_pairs_ = len(rows)
        self._external = external
        groups = np.arange(count) if groups is None else np.asarray(groups)
        self._groups = np.unique(groups[rows], return_inverse=True)[1]
        held = sample_rows(len(rows), HELD_OUT_ROWS, self.random_state)
        self.held_rows_ = rows[held]
        self.scores_: dict[Modality, dict[str, dict[str, float]]] = {m: {} for m in MODALITIES}
        self.out_of_fold_: dict[Modality, np.ndarray] | None = None
        self.chosen_: dict[Modality, str] = dict.fromkeys(MODALITIES, "start")
        independent = int(self._groups.max()) + 1
        if independent < self.settings.fewest_pairs:
            logger.warning(
                "only %d complete pairs%s (fewer than %d): the mapping is the closed-form start",
                independent,
                "" if independent == self.n_pairs_ else " that share no picture or text",
                self.settings.fewest_pairs,
            )
            return self._fitted()
        makers = {n: partial(self._candidate, n) for n in names(self.settings, external)}
        self._contest = Contest.hold(
            makers, self._pairs, self._groups, held, self.settings.folds, self.random_state
        )
        self._choose({})
        return self

    def settle(self, judge: Judge | None = None) -> CrossModalMapping:
        """Chooses among those compared, and fits what was chosen to all pairs.

        Parameters
        ----------
        judge : callable, optional
            Given a source modality and per candidate the predictions for `held_rows_`, how like
            the truth the examples found with them are, row by row. Without it ranks decide.
        """
        if self._contest is None:
            return self
        if judge is not None:
            predictions = self._contest.predictions.items()
            self._choose(
                {m: judge(m, {name: rows[m] for name, rows in predictions}) for m in MODALITIES}
            )
        self._contest = None
        return self._fitted()

    def _candidate(self, name: str, fitted: Mapping[str, Regressor]) -> Regressor:
        return make(name, self.settings, self.device, self._external, fitted)

    def _fitted(self) -> CrossModalMapping:
        """Fits what was chosen to all pairs, which are not needed from then on."""
        self._models: dict[str, Regressor] = {
            name: self._candidate(name, {}).fit(self._pairs, self.random_state, self._groups)
            for name in sorted(set(self.chosen_.values()))
        }
        if self.out_of_fold_ is None:
            start = self._models["start"]
            assert isinstance(start, Start)
            self.constant_: dict[Modality, bool] = dict.fromkeys(MODALITIES, start.constant)
        del self._pairs, self._groups
        networks = [m for m in self._models.values() if isinstance(m, SharedMLP)]
        self.losses_ = networks[0].losses if networks else []
        for source in MODALITIES:
            if self.constant_[source]:
                logger.warning(
                    "the mapping from %s to %s says nothing about a row: retrieval and selection "
                    "go without pseudo-embeddings in this direction",
                    source,
                    opposite(source),
                )
        return self

    def _choose(self, quality: Mapping[Modality, Mapping[str, np.ndarray]]) -> None:
        """Per direction the best, by examples where their quality is known, else by rank."""
        assert self._contest is not None
        for source in MODALITIES:
            self.chosen_[source] = self._contest.best(source, quality.get(source))
        self.scores_ = self._contest.scores
        self.constant_ = {m: self._contest.says_nothing(m, self.chosen_[m]) for m in MODALITIES}
        self.out_of_fold_ = {m: self._contest.predictions[self.chosen_[m]][m] for m in MODALITIES}

    def map(
        self, embeddings: np.ndarray, *, source: Modality, target: Modality | None = None
    ) -> np.ndarray:
        """Pseudo-embeddings of the other half.

        Parameters
        ----------
        embeddings : shape [n, d of source]
        source, target : the modality given, and the one wanted (the other one)

        Returns
        -------
        float32 [n, d of target], unit rows
        """
        goal = opposite(source)
        if target is not None and target != goal:
            raise ValueError(f"target must be {goal!r} for source {source!r}; got {target!r}")
        rows = normalise(embeddings)
        if len(rows) == 0:
            return np.empty((0, self.dimension(goal)), dtype=np.float32)
        return self._models[self.chosen_[source]].predict(rows, source)

    def dimension(self, modality: Modality) -> int:
        """Width of a modality's embeddings."""
        return len(next(iter(self._models.values())).state()[f"mean_{modality}"])

    def save(self, path: Path) -> None:
        """Writes the fitted state as `path`.safetensors and `path`.json."""
        arrays = {
            f"{name}/{key}": value
            for name, model in self._models.items()
            for key, value in model.state().items()
        }
        state = {
            "settings": self.settings.model_dump(mode="json"),
            "random_state": self.random_state,
            "chosen": self.chosen_,
            "scores": self.scores_,
            "constant": self.constant_,
            "pairs": self.n_pairs_,
        }
        save_state(path, arrays, state)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> CrossModalMapping:
        """Reads what `save` wrote; `out_of_fold_` is not kept."""
        arrays, state = load_state(path)
        loaded = cls(MappingSettings(**state["settings"]), state["random_state"], device)
        loaded.chosen_ = state["chosen"]
        loaded.scores_ = state["scores"]
        loaded.constant_ = state["constant"]
        loaded.n_pairs_ = state["pairs"]
        loaded.out_of_fold_ = None
        loaded.losses_ = []
        loaded._models = {
            name: loaded._candidate(name, {}).restore(
                {
                    key.removeprefix(f"{name}/"): value
                    for key, value in arrays.items()
                    if key.startswith(f"{name}/")
                }
            )
            for name in sorted(set(loaded.chosen_.values()))
        }
        return loaded
