"""The one typed config: every section's settings put together, validated once at the start."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from generators import CAPTIONERS, IMAGE_GENERATORS
from generators.base import needs_of
from generators.usage import Price
from kb.embeddings import Modality
from kb.encoders import ENCODERS
from kb.recipe import KnowledgeBaseSettings
from pipeline.config.engine import EngineSettings
from pipeline.config.evaluation import EvaluationSettings
from pipeline.config.generation import GenerationSettings
from pipeline.config.run import RunSettings
from pipeline.dataset.dataset import DatasetSettings
from pipeline.dataset.settings import ExternalSettings
from pipeline.export.settings import ExportSettings
from pipeline.models.components import Component
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError, first_error, without_password
from pipeline.storage.files import FOLDER_NAME
from selection.settings import Scoring, ScoringSettings

PAPER: dict[str, Any] = {
    "knowledge_base": KnowledgeBaseSettings.paper().model_dump(mode="json", exclude_unset=True),
    "generation": {"ungrounded": {"text": 0.0, "image": 0.0}},
    "selection": {
        "caption": {"lambda2": 0.1, "hubness": 0.0, "agreement": 0.0},
        "image": {"lambda2": 0.1, "standardise": False},
    },
}


# Sections of what makes a missing half.
GENERATORS: dict[Modality, str] = {"text": "captioner", "image": "image_generator"}


class Config(BaseModel):
    """A whole run."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("run", pattern=FOLDER_NAME, description="name of the run")
    preset: Literal["default", "paper"] = Field(
        "default", description="`paper` sets what is not given as the paper has it"
    )
    output: str | None = Field(
        None,
        description="folder of the run, or an fsspec URL; default runs/NAME beside the config",
    )
    working_folder: str | None = Field(
        None,
        description="local folder of a run whose output is a URL; default ~/.cache/rag4dmc/DIGEST",
    )
    dataset: DatasetSettings = Field(description="the incomplete dataset")
    external: list[ExternalSettings] = Field([], description="public pairs to learn from")
    encoder: dict[str, Any] = Field(
        description="what embeds images and texts, by kind (`pair` joins two encoders)"
    )
    knowledge_base: KnowledgeBaseSettings = Field(default_factory=KnowledgeBaseSettings)
    captioner: dict[str, Any] | None = Field(
        None, description="what writes missing texts, by kind; without one none are written"
    )
    image_generator: dict[str, Any] | None = Field(
        None, description="what draws missing images, by kind; without one none are drawn"
    )
    generation: GenerationSettings = Field(default_factory=GenerationSettings)
    selection: ScoringSettings = Field(default_factory=ScoringSettings)
    export: list[ExportSettings] = Field(
        [], description="layouts that every run exports into exports/NAME, beside completed/"
    )
    run: RunSettings = Field(default_factory=RunSettings)
    evaluation: EvaluationSettings = Field(
        default_factory=lambda: EvaluationSettings(),
        description="what `rag4dmc evaluate` hides and measures",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @field_validator("output")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        return without_password(value)

    @model_validator(mode="after")
    def _makes_something(self) -> Config:
        if not self.made:
            raise ValueError("captioner or image_generator must be given, or both")
        return self

    @model_validator(mode="after")
    def _remembers_alone(self) -> Config:
        # What is kept is one file, which one process writes.
        if self.run.remember and self.engine.kind != "local":
            raise ValueError(f"run.remember needs engine local; got engine {self.engine.kind}")
        return self

    @model_validator(mode="after")
    def _has_a_check(self) -> Config:
        for half, scoring in self.scoring.items():
            if scoring.floor_confidence is not None and self.run.check == 0:
                name = "caption" if half == "text" else "image"
                raise ValueError(
                    f"selection.{name}.floor_confidence needs a check, by which confidence is known;"
                    f" got {scoring.floor_confidence:g} with run.check 0"
                )
            if scoring.automatic and self.run.check == 0:
                name = "caption" if half == "text" else "image"
                raise ValueError(
                    f"selection.{name}.{scoring.automatic[0]} needs a check to be learned from, or a"
                    " number; got auto with run.check 0"
                )
        if self.generation.min_improvement is not None and self.run.check == 0:
            raise ValueError(
                "generation.n needs a check, by which it is known what one more candidate gains, or a"
                f" number; got {self.generation.told} with run.check 0"
            )
        if self.generation.second_look is not None and self.run.check == 0:
            raise ValueError(
                "generation.second_look needs a check, by which confidence is known;"
                f" got below {self.generation.second_look.below:g} with run.check 0"
            )
        return self

    # Set by `load_config`: relative paths start here.
    base: Path = Field(Path("."), exclude=True)

    @property
    def folder(self) -> Path:
        """The run's folder on this machine."""
        if self.output_url is None:
            return (self.base / (self.output or f"runs/{self.name}")).resolve()
        if self.working_folder is not None:
            return (self.base / Path(self.working_folder).expanduser()).resolve()
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return caches / "rag4dmc" / digest(self.output_url)[:16]

    @property
    def embeddings_folder(self) -> Path:
        """Where embeddings are kept by content."""
        shared = self.run.embeddings
        return self.folder / "embeddings" if shared is None else (self.base / shared).resolve()

    @property
    def output_url(self) -> str | None:
        """The URL that the run's folder mirrors, where the output is one."""
        is_url = self.output is not None and "://" in self.output
        return self.output.rstrip("/") if self.output and is_url else None

    def encoder_component(self) -> Component:
        return Component.choose("encoder", self.encoder, ENCODERS)

    @property
    def made(self) -> tuple[Modality, ...]:
        """The halves that have a generator; rows that lack another are rejected."""
        given: dict[Modality, object] = {"text": self.captioner, "image": self.image_generator}
        return tuple(half for half, values in given.items() if values is not None)

    @property
    def scoring(self) -> dict[Modality, Scoring]:
        """How candidates are scored, by the half that they are."""
        return {"text": self.selection.caption, "image": self.selection.image}

    def generator_component(self, missing: Modality) -> Component:
        """The component that makes the missing half, which must be among `made`."""
        values, known = {
            "text": (self.captioner, CAPTIONERS),
            "image": (self.image_generator, IMAGE_GENERATORS),
        }[missing]
        assert values is not None
        return Component.choose(GENERATORS[missing], values, known)

    def drawn_again(self, missing: Modality) -> int:
        """Candidates of a second look at a row that lacks this half; 0 where it gets none."""
        if missing not in self.made or self.generation.second_look is None:
            return 0
        needs = needs_of(self.generator_component(missing).settings)
        return self.generation.drawn_again(missing, needs)

    @property
    def prices(self) -> dict[Modality, Price | None]:
        """What the generators' servers ask for, by the half that they make."""
        made = {half: self.generator_component(half).settings for half in self.made}
        return {half: getattr(settings, "price", None) for half, settings in made.items()}

    def components(self) -> list[Component]:
        """Every component that is chosen by kind."""
        return [self.encoder_component(), *map(self.generator_component, self.made)]

    def resolved(self) -> str:
        """The resolved settings as YAML, for `config.yaml` in the run's folder.

        Relative paths stand as they were given, with the folder that they start from.
        """
        values = self.model_dump(mode="json")
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        return f"# Resolved settings; relative paths start from {self.base}\n{text}"


def load_config(path: str | Path) -> Config:
    """Read and validate a config.

    Parameters
    ----------
    path
        A YAML file. Relative paths in it start from its folder.

    Raises
    ------
    ConfigError
        In one line: the file, field, rule and value.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name the config file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of settings; got {type(values).__name__}")
    try:
        return make_config(values, path.resolve().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def make_config(values: dict[str, Any], base: str | Path = ".") -> Config:
    """Validate settings given as a mapping; the same as `load_config` without a file."""
    values = copy.deepcopy(values)
    if "base" in values:
        raise ConfigError("base: unknown key")
    if values.get("preset") == "paper":
        values = _under(values, PAPER)
    try:
        config = Config(**values, base=Path(base).resolve())
    except ValidationError as error:
        raise ConfigError(first_error(error)) from None
    _check_names("external", [external.name for external in config.external])
    _check_names("export", [export.place for export in config.export])
    if config.working_folder is not None and config.output_url is None:
        raise ConfigError(
            "working_folder: is for an output that is a URL;"
            f" got {config.working_folder!r} with output {config.output!r}"
        )
    config.components()
    for component in map(config.generator_component, config.made):
        if needs_of(component.settings).example and not config.generation.grounded:
            raise ConfigError(
                f"generation.grounded: must be true, since {component.section} {component.kind}"
                " makes nothing without an example; got False"
            )
    if config.generation.second_look is not None and not any(map(config.drawn_again, config.made)):
        raise ConfigError(
            "generation.second_look: needs a generator that takes examples, for it shows other ones;"
            f" got {_without_examples(config)}"
        )
    return config


def _without_examples(config: Config) -> str:
    if not config.generation.grounded:
        return "generation.grounded False"
    made = map(config.generator_component, config.made)
    return " and ".join(f"{component.section} {component.kind}" for component in made)


def _check_names(section: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{section}: every name must be its own; {name!r} stands twice")


def _under(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`values` over `defaults`, mapping by mapping."""
    merged = copy.deepcopy(defaults)
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _under(value, merged[key])
        else:
            merged[key] = value
    return merged
