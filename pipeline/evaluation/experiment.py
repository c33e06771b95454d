"""An evaluation from start to end: every variant at every missing rate through the one pipeline.

Everything dear is kept by content: embeddings, candidates, knowledge bases, completed rows and
fine-tunings. One more variant, rate or seed costs only itself.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kb.encoders import ENCODERS
from pipeline.config.config import GENERATORS, Config
from pipeline.config.evaluation import FineTuningSettings, HeadsSettings
from pipeline.dataset.sources import Progress, quiet
from pipeline.evaluation.changes import Sweep
from pipeline.evaluation.draw import Draw
from pipeline.evaluation.forecast import Forecast, forecast
from pipeline.evaluation.results.results import Results
from pipeline.models.components import Component
from pipeline.storage.lock import hold

logger = logging.getLogger(__name__)


class Experiment:
    """Evaluates a config's settings on its own complete pairs.

    Parameters
    ----------
    config : Config
        Its section `evaluation` says what is compared.
    progress : Progress
        Called with the name of a step, what is done of it, and the total.
    """

    def __init__(self, config: Config, progress: Progress = quiet) -> None:
        self.config = _asked(config)
        self.settings = config.evaluation
        self.progress = progress
        self.folder = config.folder / "evaluation"

    def run(
        self,
        variants: Sequence[str] | None = None,
        rates: Sequence[float] | None = None,
        seeds: int | None = None,
        sweeps: Sequence[Sweep] = (),
        foreseen: Callable[[Forecast], None] | None = None,
    ) -> Results:
        """Complete and measure every arm of every draw.

        Parameters
        ----------
        variants, rates, seeds
            In place of those of the settings.
        sweeps
            Each adds its points, of rag4dmc where it is asked for, else of the first variant that
            generates.
        foreseen
            Told how long it will take, before anything is completed; measuring that takes the
            models' loading and some batches.

        Raises
        ------
        ConfigError
            The dataset or the settings allow no evaluation.
        RunLocked
            Another evaluation of this config is under way.
        """
        run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        self._find_models()
        with hold(self.folder, run_id):
            names = variants or self.settings.variants
            results = Results({})
            for number in range(self.settings.draws):
                draw = self.draw(number)
                arms = draw.arms(names, rates, sweeps)
                results.facts = results.facts or self._facts(run_id, draw)
                results.groups = draw.world.views.groups
                if foreseen is not None and number == 0:
                    foreseen(forecast(draw, arms, seeds, self.settings.draws))
                done, total = number * len(arms), self.settings.draws * len(arms)
                for place, arm in enumerate(arms):
                    self.progress("variants", done + place, total)
                    draw.measure(arm, results, seeds)
                self.progress("variants", done + len(arms), total)
                if draw.downstream is not None:
                    ranks = draw.downstream.untrained()
                    if ranks is not None:
                        results.add_start(ranks, draw.downstream.test.names, number)
            return results

    def _find_models(self) -> None:
        """Refuse a model that is not there before the pairs are embedded, which may take hours."""
        parts = self.config.components()
        if self.settings.judge is not None:
            parts.append(Component.choose("evaluation.judge", self.settings.judge, ENCODERS))
        for part in parts:
            part.resolve(self.config.base, self.config.run.offline)

    def draw(self, number: int = 0) -> Draw:
        """One of the draws of test set and masks."""
        return Draw(self.config, self.folder, number, self.progress)

    def _facts(self, run_id: str, draw: Draw) -> dict[str, Any]:
        """What a reader has to know beside the figures."""
        downstream = self.settings.downstream
        return {
            "name": self.config.name,
            "run_id": run_id,
            **draw.world.facts(),
            "draws": self.settings.draws,
            "n": self.config.generation.most,
            "judge_selects": draw.world.views.judge_selects,
            "judge": _told(draw.world.views.judge.config.encoder),
            "start": draw.start.settings.model
            if isinstance(downstream, FineTuningSettings)
            else None,
            "downstream": None if downstream is None else downstream.model_dump(mode="json"),
            "measure": "mean recall" if isinstance(downstream, HeadsSettings) else "mean R@1",
        }


def _asked(config: Config) -> Config:
    """The config without the generator of a half that is never hidden."""
    given = config.evaluation
    if given.mask is not None or given.missing not in config.made:
        return config
    others = [GENERATORS[half] for half in config.made if half != given.missing]
    return config.model_copy(update=dict.fromkeys(others))


def _told(encoder: Mapping[str, Any]) -> str:
    """What an encoder is called: its model or models, else its kind."""
    models = [encoder, *(encoder.get(half) or {} for half in ("image", "text"))]
    return " and ".join(str(one["model"]) for one in models if one.get("model")) or str(
        encoder.get("kind")
    )
