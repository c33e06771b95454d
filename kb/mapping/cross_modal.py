"""Cross-modal mapping: the pseudo-embedding of a row's missing half, from its observed half."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from kb.device import resolve_device
from kb.embeddings import MODALITIES, Modality, Rows, normalise, opposite, take
from kb.mapping.contest import best, chance, figures, out_of_fold
from kb.mapping.regressors import Regressor, Ridge, Start
from kb.mapping.settings import MappingSettings, NoCompletePairs
from kb.mapping.shared_mlp import Blend, SharedMLP, blended
from kb.storage import load_state, save_state

logger = logging.getLogger(__name__)

CANDIDATES = ("start", "ridge", "blend", "mlp")
# Pairs that ranks are counted among at most: a larger pool would tell no more.
RANK_POOL = 2000


class CrossModalMapping:
    """Predicts text embeddings from image embeddings and the other way round.

    The candidates are compared by how well they find the true half of a pair that they did not
    see (`kb.mapping.contest`).

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
        Per source modality the name of the mapping used: start, ridge, blend or mlp.
    scores_ : dict
        Per source modality and candidate the figures of `kb.mapping.contest`, out of fold; `mean` is the
        mean of the other modality, `chance` the reciprocal rank of a guess. Empty where no
        contest was held.
    constant_ : dict
        Per source modality True where the prediction says nothing about the row: it finds the
        true half no better than chance.
    n_pairs_ : int
        Pairs it was fitted on.
    rows_ : int64 [n_pairs_]
        The rows of the arrays given to `fit` that were used.
    out_of_fold_ : dict or None
        Per source modality the predictions for `rows_` by mappings that did not see the row,
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

    def _candidate(self, name: str) -> Regressor:
        if name == "start":
            return Start()
        if name == "ridge":
            return Ridge()
        s = self.settings
        network = Blend if name == "blend" else SharedMLP
        return network(
            residual=s.residual,
            width=s.width,
            dropout=s.dropout,
            learning_rate=s.learning_rate,
            weight_decay=s.weight_decay,
            epochs=s.epochs,
            patience=s.patience,
            batch_size=s.batch_size,
            device=resolve_device(self.device),
        )

    def fit(
        self,
        image_embeddings: Rows,
        text_embeddings: Rows,
        groups: np.ndarray | None = None,
    ) -> CrossModalMapping:
        """Learns both directions from complete pairs.

        Parameters
        ----------
        image_embeddings, text_embeddings : shapes [n, d_image] and [n, d_text]
            Row i of both belongs to pair i.
        groups : int [n], optional
            Pairs that share a half have equal numbers (`kb.groups`), and are held out together.
            By default no two do.

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
        self.rows_ = np.arange(count, dtype=np.int64)
        if count > self.settings.sample:
            generator = np.random.default_rng(self.random_state)
            chosen = generator.choice(count, self.settings.sample, replace=False)
            self.rows_ = np.sort(chosen).astype(np.int64)
        pairs: dict[Modality, np.ndarray] = {
            "image": take(image_embeddings, self.rows_),
            "text": take(text_embeddings, self.rows_),
        }
        self.n_pairs_ = len(self.rows_)
        groups = np.arange(count) if groups is None else np.asarray(groups)
        groups = np.unique(groups[self.rows_], return_inverse=True)[1]
        independent = int(groups.max()) + 1
        self.scores_: dict[Modality, dict[str, dict[str, float]]] = {m: {} for m in MODALITIES}
        self.out_of_fold_: dict[Modality, np.ndarray] | None = None
        method = self.settings.method
        if independent < self.settings.fewest_pairs:
            logger.warning(
                "only %d complete pairs%s (fewer than %d): the mapping is the closed-form start",
                independent,
                "" if independent == self.n_pairs_ else " that share no picture or text",
                self.settings.fewest_pairs,
            )
            self.chosen_: dict[Modality, str] = dict.fromkeys(MODALITIES, "start")
            start = Start().fit(pairs)
            self.constant_: dict[Modality, bool] = dict.fromkeys(MODALITIES, start.constant)
            self._models: dict[str, Regressor] = {"start": start}
        else:
            names = CANDIDATES if method == "auto" else (method,)
            self._contest(pairs, groups, names)
            self._models = {
                name: self._candidate(name).fit(pairs, self.random_state, groups)
                for name in sorted(set(self.chosen_.values()))
            }
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

    def _contest(
        self, pairs: Mapping[Modality, np.ndarray], groups: np.ndarray, names: tuple[str, ...]
    ) -> None:
        """Cross-validates the candidates, and chooses per direction."""
        generator = np.random.default_rng(self.random_state)
        # A blend beside its parts needs no fit of its own.
        derived = {"start", "blend", "mlp"} <= set(names)
        fitted = [name for name in names if name != "blend" or not derived]
        predictions = out_of_fold(
            {name: partial(self._candidate, name) for name in fitted},
            pairs,
            groups,
            self.settings.folds,
            generator,
            self.random_state,
        )
        if derived:
            start, network = predictions["start"], predictions["mlp"]
            predictions["blend"] = {m: blended(start[m], network[m]) for m in MODALITIES}
        order = generator.permutation(len(groups))
        # One of each group: the others would be as right.
        first = np.unique(groups[order], return_index=True)[1]
        pool = order[np.sort(first)][:RANK_POOL]
        self.chosen_ = {}
        self.constant_ = {}
        self.out_of_fold_ = {}
        for source in MODALITIES:
            truth = pairs[opposite(source)]
            self.scores_[source] = {
                name: figures(predictions[name][source], truth, pool) for name in (*names, "mean")
            }
            self.scores_[source]["chance"] = {"reciprocal_rank": chance(len(pool))}
            self.chosen_[source] = best(self.scores_[source], names)
            self.out_of_fold_[source] = predictions[self.chosen_[source]][source]
            chosen = self.scores_[source][self.chosen_[source]]
            margin = chosen["reciprocal_rank"] - chance(len(pool))
            self.constant_[source] = margin <= 2 * chosen["standard_error"]

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
        loaded._models = {
            name: loaded._candidate(name).restore(
                {
                    key.removeprefix(f"{name}/"): value
                    for key, value in arrays.items()
                    if key.startswith(f"{name}/")
                }
            )
            for name in sorted(set(loaded.chosen_.values()))
        }
        return loaded
