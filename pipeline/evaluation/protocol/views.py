"""The pairs of an evaluation as two encoders see them: the one that selects, and the judge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kb.embeddings import MODALITIES, Modality, Rows, take
from kb.groups import content_groups
from kb.pairs import Pairs as EmbeddedPairs
from pipeline.config.config import Config
from pipeline.dataset.images import MAX_PIXELS
from pipeline.dataset.settings import INTERNAL
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.changes import derive
from pipeline.evaluation.protocol.split import first, flat, in_groups
from pipeline.job import Job


class Views:
    """Embeddings of the complete pairs of a config's sources, and of halves that are made of them.

    All are kept by content where the config's runs keep theirs. Of the dataset only the pairs that
    take part are embedded.

    Parameters
    ----------
    config : Config
    folder : Path
        Where what else is made of them is kept.
    progress : Progress

    Attributes
    ----------
    job, judge : Job
        Of the encoder that selects, and of the judge; they complete nothing.
    """

    def __init__(self, config: Config, folder: Path, progress: Progress = quiet) -> None:
        store = {"run.embeddings": str(Job(config).embeddings.folder)}
        self.settings = config.evaluation
        judge = self.settings.judge
        changes: dict[str, Any] = {} if judge is None else {"encoder": judge}
        self.job = Job(derive(config, store, folder / "pairs"), progress)
        self.judge = Job(derive(config, store | changes, folder / "judged"), progress)

    @cached_property
    def judge_selects(self) -> bool:
        """Whether generated halves are judged by the encoder that selects them, which flatters."""
        judge, own = (
            job.models.identity(job.models.encoder_component) for job in (self.judge, self.job)
        )
        return judge == own

    @cached_property
    def taking_part(self) -> list[str]:
        """Ids of as many of the dataset's complete pairs as the settings say, drawn by their seed
        in whole groups; all of them where a mask file says what each is for."""
        if self.settings.mask is not None or self.settings.pairs is None:
            return list(self.groups)
        groups = in_groups(self.groups, self.settings.seed, "pairs", self.groups)
        return flat(first(groups, self.settings.pairs))

    @cached_property
    def embedded(self) -> dict[str, EmbeddedPairs]:
        """The pairs of every source by the encoder that selects."""
        return self._pairs_by_source(self.job)

    @cached_property
    def judged(self) -> dict[str, EmbeddedPairs]:
        """The same by the judge."""
        return self._pairs_by_source(self.judge)

    def _pairs_by_source(self, job: Job) -> dict[str, EmbeddedPairs]:
        """The dataset's pairs that take part, and all of the external sources'."""
        chosen = {INTERNAL: set(self.taking_part)}
        return {
            name: job.embeddings.pairs(name, job.progress, chosen.get(name))
            for name in job.sources.catalogs(job.progress)
        }

    @cached_property
    def places(self) -> dict[str, int]:
        """Row of each of the dataset's embedded pairs that both encoders take, by id."""
        return {
            row_id: row
            for row, row_id in enumerate(ids_of(self.embedded[INTERNAL]))
            if row_id in self._judged_places
        }

    @cached_property
    def _judged_places(self) -> dict[str, int]:
        """Row of each of the dataset's embedded pairs by the judge, by id."""
        return {row_id: row for row, row_id in enumerate(ids_of(self.judged[INTERNAL]))}

    @cached_property
    def halves(self) -> dict[str, dict[Modality, str]]:
        """Digests of both halves of the dataset's complete pairs, by id."""
        catalog = self.job.sources.catalog(progress=self.job.progress)
        ids = catalog.complete()["id"].to_pylist()
        return {
            row_id: dict(zip(MODALITIES, halves, strict=True))
            for row_id, *halves in zip(ids, *map(catalog.digests, MODALITIES), strict=True)
        }

    @cached_property
    def groups(self) -> dict[str, str]:
        """Of each of the dataset's complete pairs the first id, by name, of those that share a
        picture or a text with it: rows of one group are not independent."""
        numbers = content_groups(
            *([halves[modality] for halves in self.halves.values()] for modality in MODALITIES)
        )
        names: dict[int, str] = {}
        for number, row_id in zip(numbers.tolist(), self.halves, strict=True):
            names[number] = min(names.get(number, row_id), row_id)
        return {
            row_id: names[number]
            for number, row_id in zip(numbers.tolist(), self.halves, strict=True)
        }

    def images(self, source: str = INTERNAL) -> Rows:
        """The pictures of a source by the encoder that selects [n, d]."""
        return self.embedded[source].embeddings["image"]

    def embeddings_of(self, ids: Sequence[str], modality: Modality, judge: bool) -> np.ndarray:
        """Unit embeddings of the true halves of some of the dataset's pairs."""
        pairs = (self.judged if judge else self.embedded)[INTERNAL]
        places = self._judged_places if judge else self.places
        return take(pairs.embeddings[modality], np.array([places[i] for i in ids], np.int64))

    def judged_by_id(self, ids: Sequence[str]) -> dict[Modality, np.ndarray]:
        """The judge's embeddings of pairs of any source, by modality; zeros where it has none."""
        places: dict[str, tuple[str, int]] = {}
        for name, pairs in self.judged.items():
            places |= {row_id: (name, row) for row, row_id in enumerate(ids_of(pairs))}
        result: dict[Modality, np.ndarray] = {}
        for modality in MODALITIES:
            width = self.judged[INTERNAL].embeddings[modality].shape[1]
            result[modality] = np.zeros((len(ids), width), np.float32)
            for name, pairs in self.judged.items():
                chosen = [n for n, i in enumerate(ids) if i in places and places[i][0] == name]
                if chosen:
                    rows = np.array([places[ids[n]][1] for n in chosen])
                    result[modality][chosen] = take(pairs.embeddings[modality], rows)
        return result

    def judged_halves(
        self, modality: Modality, contents: Sequence[bytes] | Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The judge's embeddings [n, d] of encoded pictures or of rows of captions, and bool [n].

        See `PairEmbeddings.of_halves`.
        """
        return self.judge.embeddings.of_halves(modality, contents, self.most_pixels)

    @property
    def most_pixels(self) -> int:
        """Most pixels of a picture that is measured: generated ones keep to no dataset's limit."""
        return max(MAX_PIXELS, self.job.config.dataset.max_pixels)


def ids_of(pairs: EmbeddedPairs) -> list[str]:
    """Ids of embedded pairs, in their order."""
    return [str(row_id) for row_id in pairs.table["id"].to_pylist()]
