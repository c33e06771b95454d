"""One draw of an evaluation: a test set and masks of its own, every variant completed and measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from pipeline.config.config import Config
from pipeline.config.evaluation import FineTuningSettings, HeadsSettings
from pipeline.config.variants import VARIANTS
from pipeline.dataset.catalog import encoded_images
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.changes import Sweep
from pipeline.evaluation.measures.direct import Direct
from pipeline.evaluation.measures.downstream import FEWEST_PAIRS, Downstream, Untouched
from pipeline.evaluation.measures.fine_tuning import FineTuning, decodes
from pipeline.evaluation.measures.heads import Heads
from pipeline.evaluation.measures.retrieval import retrieval_figures
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.protocol.world import World
from pipeline.evaluation.results.records import Record
from pipeline.evaluation.results.results import Results
from pipeline.evaluation.runs import Arm, Runs
from pipeline.export.cutoff import keep_best
from pipeline.models.components import Component, check_device
from pipeline.storage.errors import ConfigError


class Draw:
    """A test set and masks, by the seed of the config's `evaluation` and the number of the draw.

    Parameters
    ----------
    config : Config
    folder : Path
        Of the evaluation; what is made is kept there by content, so that draws may share it.
    number : int
        From 0.
    progress : Progress
    """

    def __init__(
        self, config: Config, folder: Path, number: int = 0, progress: Progress = quiet
    ) -> None:
        given = config.evaluation
        self.settings = given.model_copy(update={"seed": given.seed + number})
        self.config = config.model_copy(update={"evaluation": self.settings})
        self.folder = folder
        self.number = number
        self.progress = progress
        self.world = World(self.config, folder, progress)
        self.runs = Runs(self.config, self.world, progress)

    def arms(
        self,
        variants: Sequence[str],
        rates: Sequence[float] | None = None,
        sweeps: Sequence[Sweep] = (),
    ) -> list[Arm]:
        """Every variant at every rate, and the points of the sweeps.

        Raises
        ------
        ConfigError
            One of them can't be, which is known here, before any is completed.
        """
        both = len(self.config.made) > 1
        chosen = [VARIANTS[name] for name in variants if both or not VARIANTS[name].halves]
        swept = sorted(
            (variant for variant in chosen if variant.generates), key=lambda v: v.name != "rag4dmc"
        )
        if sweeps and not swept:
            raise ConfigError("--sweep: needs a variant that generates, such as rag4dmc")
        if rates and self.settings.mask is not None:
            raise ConfigError(
                f"--rates: must not be given with evaluation.mask, which says what is hidden;"
                f" got {', '.join(f'{rate:g}' for rate in rates)}"
            )
        arms = []
        for masked in self.world.masks(sorted(set(rates or self.settings.rates))):
            whole = len(self.world.train) - len(masked.hidden)
            if self.settings.downstream is not None and whole < FEWEST_PAIRS:
                raise ConfigError(
                    f"evaluation: of {len(self.world.train)} training pairs a missing rate of"
                    f" {masked.rate:g} leaves {whole} whole, and training needs {FEWEST_PAIRS}"
                )
            arms += [Arm(variant, masked) for variant in chosen]
            for sweep in sweeps:
                arms += [Arm(swept[0], masked, point, changes) for point, changes in sweep.points()]
        for arm in arms:
            if arm.variant.generates:
                self.runs.config_of(arm)
        # What is asked for twice is measured once: counted twice it would look surer than it is.
        return list({(arm.masked.rate, arm.label): arm for arm in arms}.values())

    @cached_property
    def direct(self) -> Direct:
        return Direct(self.world, self.folder / "direct")

    @cached_property
    def downstream(self) -> Downstream | None:
        """What learns from completed data, where it is asked for."""
        settings, folder = self.settings.downstream, self.folder / "downstream"
        if settings is None:
            return None
        check_device("evaluation.downstream.device", settings.device)
        limit = self.world.views.most_pixels
        tested = [i for i in self.world.test if decodes(self.world.rows[i].image, limit)]
        test = Untouched(self.world.pairs_of(tested), tested)
        if isinstance(settings, HeadsSettings):
            views = self.world.views
            models = views.judge.models
            towers = models.identity(models.encoder_component)
            shared = bool(models.encoder.shared_space)
            return Heads(settings, views.judged_halves, towers, shared, test, folder)
        model = next(iter(self.start.resolve(self.config.base, self.config.run.offline).values()))
        return FineTuning(settings, model.path, model.revision, test, folder, limit)

    @cached_property
    def start(self) -> Component:
        """The checkpoint that fine-tuning starts from."""
        given = self.settings.downstream
        assert isinstance(given, FineTuningSettings)
        values = given.start or self.settings.judge or self.config.encoder
        if values.get("kind") != "open_clip":
            raise ConfigError(
                "evaluation.downstream.start: must be an encoder of kind open_clip, which can be"
                f" fine-tuned; got {values.get('kind')!r}; downstream: heads takes any"
            )
        from kb.encoders import ENCODERS

        return Component.choose("evaluation.downstream.start", values, ENCODERS)

    def measure(self, arm: Arm, results: Results, seeds: int | None) -> None:
        """Complete an arm, and add everything that is measured of it."""
        hidden = arm.masked.hidden
        rate, label = arm.masked.rate, arm.label
        train = self.world.pairs_of(
            [i for i in self.world.train if arm.variant.name == "complete" or i not in hidden]
        )
        if arm.variant.generates:
            job = self.runs.job_of(arm)
            table = keep_best(job.completed().to_table(), arm.variant.best)
            statuses = table["status"].to_pylist()
            for status in dict.fromkeys(statuses):
                results.add(
                    Record(rate, label, "rows", status, statuses.count(status), draw=self.number)
                )
            figures = self.direct.measure(job, table, hidden)
            if job.config.generation.grounded:
                figures += retrieval_figures(job, self.world, hidden)
            for one in figures:
                rows = one.pop("rows", None)
                results.add(Record(rate, label, draw=self.number, **one), rows)
            train = _filled(table, self.world)
        if self.downstream is not None:
            assert self.settings.downstream is not None
            count = seeds or self.settings.downstream.seeds
            train = self.downstream.usable(train)
            name = f"train on {label} at {rate:g}"
            self.progress(name, 0, count)
            ranks = self.downstream.measure(train, count)
            results.add_ranks(
                rate, label, ranks, self.downstream.test.names, len(train), self.number
            )
            self.progress(name, count, count)


def _filled(table: pa.Table, world: World) -> Pairs:
    """The pairs of a completed dataset, in the order of the training ids.

    Rows whose missing half could not be made are left out, as training would leave them out.
    """
    place = {row_id: row for row, row_id in enumerate(table["id"].to_pylist())}
    images = encoded_images(table).to_pylist()
    texts = table["text"].to_pylist()
    chosen = []
    for row in (place[row_id] for row_id in world.train if row_id in place):
        if images[row] is not None and texts[row]:
            text = texts[row]
            chosen.append((images[row], (text,) if isinstance(text, str) else tuple(text)))
    return Pairs([image for image, _ in chosen], [text for _, text in chosen])
