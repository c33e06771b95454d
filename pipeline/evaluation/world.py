"""The world of an evaluation: its pairs, split and masked, and what two encoders see in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kb.embeddings import MODALITIES, Modality, Subset, take
from kb.pairs import Pairs as EmbeddedPairs
from pipeline.config.config import GENERATORS, Config
from pipeline.dataset.catalog import digest, encoded_images, fetch
from pipeline.dataset.external import INTERNAL
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.changes import derive
from pipeline.evaluation.downstream import Pairs
from pipeline.evaluation.masked import Masked, Row, write_masked
from pipeline.evaluation.protocol import (
    apply_mask,
    draw_mask,
    near_duplicates,
    read_mask,
    shuffled,
    split,
)
from pipeline.job import Job
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import write_whole

ROWS_AT_ONCE = 256


class World:
    """The complete pairs of a config's dataset, split for evaluation.

    Parameters
    ----------
    config : Config
    folder : Path
        Where what is made of them is kept.
    progress : Progress
    tested : bool
        False splits no test set off: for tuning, where the hidden halves are the test.
    """

    def __init__(
        self, config: Config, folder: Path, progress: Progress = quiet, tested: bool = True
    ) -> None:
        self.tested = tested
        self.config = config
        self.settings = config.evaluation
        self.folder = folder
        # Pairs that would have trained but for a near-duplicate in the test set.
        self.left_out = 0
        self.job = self._looking(config, {}, "pairs", progress)
        judge = self.settings.judge
        self.judge = self._looking(
            config, {} if judge is None else {"encoder": judge}, "judged", progress
        )

    def _looking(
        self, config: Config, changes: Mapping[str, Any], name: str, progress: Progress
    ) -> Job:
        """A job that embeds the pairs as they are, and completes nothing."""
        shared = {"run.embeddings": str(self.folder / "embeddings")}
        return Job(derive(config, {**shared, **changes}, self.folder / name), progress)

    @cached_property
    def judge_selects(self) -> bool:
        """Whether generated halves are judged by the encoder that selects them, which flatters."""
        judge, own = (
            job.models.identity(job.models.encoder_component) for job in (self.judge, self.job)
        )
        return judge == own

    @cached_property
    def embedded(self) -> dict[str, EmbeddedPairs]:
        """The pairs of every source by the encoder that selects."""
        return self.job.pairs()

    @cached_property
    def judged(self) -> dict[str, EmbeddedPairs]:
        """The same by the judge."""
        return self.judge.pairs()

    @cached_property
    def places(self) -> dict[str, int]:
        """Row of each of the dataset's complete pairs, by id."""
        return {row_id: row for row, row_id in enumerate(_ids(self.embedded[INTERNAL]))}

    @cached_property
    def _split(self) -> tuple[list[str], list[str], dict[str, Modality] | None]:
        """Test ids, training ids, and the hidden halves where a mask file gives them."""
        settings, ids = self.settings, list(self.places)
        if not self.tested:
            order = shuffled(ids, settings.seed, "pairs")
            return [], order[: settings.pairs], None
        if settings.mask is not None:
            path = self.config.base / settings.mask
            test, train, mask = apply_mask(self.places, read_mask(path), settings.mask)
            if not test:
                test, train = split(train, settings.test_share, settings.seed)
            train = self._without_duplicates(test, train)
            kept = set(train)
            return test, train, {row: half for row, half in mask.items() if row in kept}
        if settings.pairs is not None:
            ids = shuffled(ids, settings.seed, "pairs")[: settings.pairs]
        test, train = split(ids, settings.test_share, settings.seed)
        return test, self._without_duplicates(test, train), None

    def _without_duplicates(self, test: Sequence[str], train: Sequence[str]) -> list[str]:
        images = self.embedded[INTERNAL].embeddings["image"]
        here, there = (
            Subset(images, np.array([self.places[row_id] for row_id in ids], np.int64))
            for ids in (train, test)
        )
        found = near_duplicates(here, there, self.settings.duplicate_cosine)
        self.left_out = int(found.sum())
        if self.left_out == len(train):
            raise ConfigError(
                f"evaluation.duplicate_cosine: at {self.settings.duplicate_cosine:g} all"
                f" {len(train)} training pairs are near-duplicates of test images; raise it"
            )
        return [row_id for row_id, lost in zip(train, found, strict=True) if not lost]

    @property
    def test(self) -> list[str]:
        """Ids of the test pairs."""
        return self._split[0]

    @property
    def train(self) -> list[str]:
        """Ids of the training pairs, near-duplicates of test images left out."""
        return self._split[1]

    @cached_property
    def excluded(self) -> dict[str, list[str]]:
        """Per external dataset the ids of near-duplicates of test images."""
        left_out: dict[str, list[str]] = {}
        if not self.test:
            return left_out
        images = self.embedded[INTERNAL].embeddings["image"]
        test = Subset(images, np.array([self.places[row_id] for row_id in self.test]))
        for name, pairs in self.embedded.items():
            if name != INTERNAL and len(pairs):
                found = near_duplicates(
                    pairs.embeddings["image"], test, self.settings.duplicate_cosine
                )
                ids = np.asarray(_ids(pairs))[found].tolist()
                left_out[name] = [row_id.removeprefix(f"{name}/") for row_id in ids]
        return left_out

    @cached_property
    def rows(self) -> dict[str, Row]:
        """Test and training pairs with their content, all in memory."""
        dataset, complete = self.job.sources.dataset, self.job.catalog.complete()
        files, positions = complete["file"].to_pylist(), complete["position"].to_pylist()
        ids = complete["id"].to_pylist()
        place = {row_id: row for row, row_id in enumerate(ids)}
        wanted = [place[row_id] for row_id in [*self.test, *self.train]]
        rows: dict[str, Row] = {}
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            part = wanted[start : start + ROWS_AT_ONCE]
            found = fetch(dataset, [(files[row], positions[row]) for row in part])
            images = encoded_images(found).to_pylist()
            for row, image, texts in zip(part, images, found["text"].to_pylist(), strict=True):
                rows[ids[row]] = Row(image, tuple(texts))
        return rows

    def pairs_of(self, ids: Sequence[str]) -> Pairs:
        """The true pairs."""
        rows = [self.rows[row_id] for row_id in ids]
        return Pairs([row.image for row in rows], [row.texts for row in rows])

    def embeddings_of(self, ids: Sequence[str], modality: Modality, judge: bool) -> np.ndarray:
        """Unit embeddings of the true halves of some of the dataset's pairs."""
        pairs = (self.judged if judge else self.embedded)[INTERNAL]
        return take(pairs.embeddings[modality], np.array([self.places[i] for i in ids], np.int64))

    def judged_by_id(self, ids: Sequence[str]) -> dict[Modality, np.ndarray]:
        """The judge's embeddings of pairs of any source, by modality."""
        places: dict[str, tuple[str, int]] = {}
        for name, pairs in self.judged.items():
            places |= {row_id: (name, row) for row, row_id in enumerate(_ids(pairs))}
        result: dict[Modality, np.ndarray] = {}
        for modality in MODALITIES:
            width = self.judged[INTERNAL].embeddings[modality].shape[1]
            result[modality] = np.empty((len(ids), width), np.float32)
            for name, pairs in self.judged.items():
                chosen = [n for n, row_id in enumerate(ids) if places[row_id][0] == name]
                if chosen:
                    rows = np.array([places[ids[n]][1] for n in chosen])
                    result[modality][chosen] = take(pairs.embeddings[modality], rows)
        return result

    def masks(self, rates: Sequence[float]) -> list[Masked]:
        """The training pairs at each missing rate, or as the mask file says.

        Raises
        ------
        ConfigError
            A mask hides nothing, or leaves no complete pair.
        """
        given = self._split[2]
        if given is not None:
            for half, section in GENERATORS.items():
                count = list(given.values()).count(half)
                if count and half not in self.config.made:
                    raise ConfigError(
                        f"evaluation.mask: {self.settings.mask} hides the {half} of {count} rows,"
                        f" and the config has no {section}"
                    )
            return [self._write(round(len(given) / len(self.train), 4), given)]
        hidden, seed = self._hidden(), self.settings.seed
        return [self._write(rate, draw_mask(self.train, rate, hidden, seed)) for rate in rates]

    def _hidden(self) -> Literal["mixed", "text", "image"]:
        """The half that is hidden: of what is asked for, what the config can make."""
        asked, made = self.settings.missing, self.config.made
        if asked == "mixed":
            return asked if len(made) > 1 else made[0]
        if asked not in made:
            raise ConfigError(
                f"evaluation.missing: {asked} is hidden, and the config has no {GENERATORS[asked]}"
            )
        return asked

    def _write(self, rate: float, hidden: Mapping[str, Modality]) -> Masked:
        several = self.job.sources.dataset.text_is_list
        folder = self.folder / "data"
        return write_masked(folder, self.train, self.rows, hidden, rate, several)

    def settings_of(self, masked: Masked) -> dict[str, Any]:
        """What a config has to say to complete a masked dataset under the protocol."""
        dataset = self.config.dataset
        values: dict[str, Any] = {
            "dataset": {
                "path": str(masked.path),
                "format": "parquet",
                "max_pixels": dataset.max_pixels,
                "decode_seconds": dataset.decode_seconds,
            },
            "run.embeddings": str(self.folder / "embeddings"),
            # A variant's knowledge base is its own: nothing of another one's may stay.
            "run.on_kb_change": "redo",
        }
        externals = []
        for external in self.config.external:
            settings = external.model_dump(mode="json")
            if ids := self.excluded.get(external.name):
                # What the config leaves out already stays out.
                ids = sorted({*ids, *self.job.sources.externals[external.name].excluded})
                path = self.folder / "data" / f"exclude-{external.name}-{digest(*ids)[:12]}.txt"
                if not path.is_file():
                    write_whole(path, "".join(f"{row_id}\n" for row_id in ids))
                settings["exclude"] = str(path)
            externals.append(settings)
        return values | {"external": externals}

    def facts(self) -> dict[str, Any]:
        """Counts of the split, for the results."""
        return {
            "pairs": len(self.places),
            "test": len(self.test),
            "train": len(self.train),
            "left_out": self.left_out,
            "near_duplicates": {name: len(ids) for name, ids in self.excluded.items()},
            "texts_are_lists": self.job.sources.dataset.text_is_list,
        }


def _ids(pairs: EmbeddedPairs) -> list[str]:
    return [str(row_id) for row_id in pairs.table["id"].to_pylist()]
