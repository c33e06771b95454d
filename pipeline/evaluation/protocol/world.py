"""The world of an evaluation: the complete pairs of its dataset, split and masked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kb.embeddings import Modality, Subset
from pipeline.config.config import GENERATORS, Config
from pipeline.dataset.catalog import encoded_images, fetch
from pipeline.dataset.settings import INTERNAL
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.protocol.masked import Masked, Pairs, Row, write_masked
from pipeline.evaluation.protocol.split import (
    apply_mask,
    draw_mask,
    near_duplicates,
    read_mask,
    rows_that_tell,
    split,
)
from pipeline.evaluation.protocol.views import Views, ids_of
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import write_whole

logger = logging.getLogger(__name__)

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
        # Pairs that would have trained, but have a near-duplicate in the test set, or show what a
        # mask file hides elsewhere; and pairs of either side that are not what they were.
        self.left_out = 0
        self.views = Views(config, folder, progress)

    @cached_property
    def _split(self) -> tuple[list[str], list[str], dict[str, Modality] | None]:
        """Test ids, training ids, and the hidden halves where a mask file gives them."""
        settings, groups = self.settings, self.views.groups
        places = self.views.places
        ids = [row_id for row_id in self.views.taking_part if row_id in places]
        if not self.tested:
            return [], ids, None
        if settings.mask is not None:
            path = self.config.base / settings.mask
            test, train, mask = apply_mask(places, read_mask(path), settings.mask)
            if not test:
                test, train = split(train, settings.test_share, settings.seed, groups)
            train = self._without_duplicates(test, train)
            telling = rows_that_tell(train, mask, self.views.halves, groups)
            self.left_out += len(telling)
            kept = {row_id: None for row_id in train if row_id not in telling}
            return test, list(kept), {row: half for row, half in mask.items() if row in kept}
        test, train = split(ids, settings.test_share, settings.seed, groups)
        return test, self._without_duplicates(test, train), None

    def _without_duplicates(self, test: Sequence[str], train: Sequence[str]) -> list[str]:
        """The training ids that share nothing with a test pair, and look like none."""
        groups, places = self.views.groups, self.views.places
        tested = {groups[row_id] for row_id in test}
        here, there = (
            Subset(self.views.images(), np.array([places[row_id] for row_id in ids], np.int64))
            for ids in (train, test)
        )
        found = near_duplicates(here, there, self.settings.duplicate_cosine)
        kept = [
            row_id
            for row_id, lost in zip(train, found, strict=True)
            if not lost and groups[row_id] not in tested
        ]
        self.left_out = len(train) - len(kept)
        if not kept:
            raise ConfigError(
                f"evaluation.duplicate_cosine: at {self.settings.duplicate_cosine:g} all"
                f" {len(train)} training pairs are near-duplicates of test images; raise it"
            )
        return kept

    @cached_property
    def test(self) -> list[str]:
        """Ids of the test pairs."""
        return [row_id for row_id in self._split[0] if row_id in self.rows]

    @cached_property
    def train(self) -> list[str]:
        """Ids of the training pairs, near-duplicates of test images left out."""
        return [row_id for row_id in self._split[1] if row_id in self.rows]

    @cached_property
    def excluded(self) -> dict[str, list[str]]:
        """Per external dataset the ids of near-duplicates of test images."""
        left_out: dict[str, list[str]] = {}
        if not self.test:
            return left_out
        places = np.array([self.views.places[row_id] for row_id in self.test])
        test = Subset(self.views.images(), places)
        for name, pairs in self.views.embedded.items():
            if name != INTERNAL and len(pairs):
                found = near_duplicates(
                    self.views.images(name), test, self.settings.duplicate_cosine
                )
                ids = np.asarray(ids_of(pairs))[found].tolist()
                left_out[name] = [row_id.removeprefix(f"{name}/") for row_id in ids]
        return left_out

    @cached_property
    def rows(self) -> dict[str, Row]:
        """Test and training pairs with their content, all in memory.

        Those that are not what they were when the dataset was scanned are left out, with a warning.
        """
        dataset, complete = self.views.job.sources.dataset, self.views.job.catalog.complete()
        files, positions = complete["file"].to_pylist(), complete["position"].to_pylist()
        ids = complete["id"].to_pylist()
        place = {row_id: row for row, row_id in enumerate(ids)}
        digests = self.views.job.catalog.digests("image")
        wanted = [place[row_id] for row_id in [*self._split[0], *self._split[1]]]
        rows: dict[str, Row] = {}
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            part = wanted[start : start + ROWS_AT_ONCE]
            found = fetch(dataset, [(files[row], positions[row]) for row in part])
            images = encoded_images(found).to_pylist()
            for row, image, texts in zip(part, images, found["text"].to_pylist(), strict=True):
                if image is not None and digest(image) == digests[row]:
                    rows[ids[row]] = Row(image, tuple(texts))
        if lost := len(wanted) - len(rows):
            self.left_out += lost
            logger.warning("%d pairs are left out: their pictures are not what they were", lost)
        return rows

    def pairs_of(self, ids: Sequence[str]) -> Pairs:
        """The true pairs."""
        rows = [self.rows[row_id] for row_id in ids]
        return Pairs([row.image for row in rows], [row.texts for row in rows])

    def masks(self, rates: Sequence[float]) -> list[Masked]:
        """The training pairs at each missing rate, or as the mask file says.

        Raises
        ------
        ConfigError
            A mask hides nothing, or leaves no complete pair.
        """
        if self._split[2] is not None:
            given = {row: half for row, half in self._split[2].items() if row in self.rows}
            for half, section in GENERATORS.items():
                count = list(given.values()).count(half)
                if count and half not in self.config.made:
                    raise ConfigError(
                        f"evaluation.mask: {self.settings.mask} hides the {half} of {count} rows,"
                        f" and the config has no {section}"
                    )
            return [self._write(round(len(given) / len(self.train), 4), given)]
        hidden, seed = self._hidden(), self.settings.seed
        return [
            self._write(rate, draw_mask(self.train, rate, hidden, seed, self.views.groups))
            for rate in rates
        ]

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
        several = self.views.job.sources.dataset.text_is_list
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
            "run.embeddings": str(self.views.job.embeddings.folder),
            # A variant's knowledge base is its own: nothing of another one's may stay.
            "run.on_kb_change": "redo",
        }
        externals = []
        for external in self.config.external:
            settings = external.model_dump(mode="json")
            if ids := self.excluded.get(external.name):
                # What the config leaves out already stays out.
                ids = sorted({*ids, *self.views.job.sources.externals[external.name].excluded})
                path = self.folder / "data" / f"exclude-{external.name}-{digest(*ids)[:12]}.txt"
                if not path.is_file():
                    write_whole(path, "".join(f"{row_id}\n" for row_id in ids))
                settings["exclude"] = str(path)
            externals.append(settings)
        return values | {"external": externals}

    def facts(self) -> dict[str, Any]:
        """Counts of the split, for the results."""
        return {
            "pairs": len(self.views.places),
            "test": len(self.test),
            "train": len(self.train),
            "left_out": self.left_out,
            "near_duplicates": {name: len(ids) for name, ids in self.excluded.items()},
            "texts_are_lists": self.views.job.sources.dataset.text_is_list,
        }
