"""The config: one validated whole, presets, and the full-size example."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from generators.base import Needs
from kb.embeddings import Modality
from pipeline.config.config import Config, load_config, make_config
from pipeline.evaluation.changes import derive
from pipeline.models.components import Component
from pipeline.storage.errors import ConfigError
from tests.worlds import SCENES, settings


def test_the_paper_preset_sets_what_is_not_given() -> None:
    config = make_config(settings(preset="paper", knowledge_base={}))
    knowledge = config.knowledge_base
    assert knowledge.mapping.method == "mlp"
    assert knowledge.alignment.gamma == 0
    assert (knowledge.filter.tau_cent, knowledge.filter.tau_inst) == (0.6, 0.6)
    assert not knowledge.filter.provisional_alignment
    assert (knowledge.retrieval.k, knowledge.retrieval.alpha) == (10, 0.5)
    assert not config.selection.image.standardise
    assert config.selection.caption.lambda2 == config.selection.image.lambda2 == 0.1


def test_what_is_given_stands_over_the_paper_preset() -> None:
    given = {"knowledge_base": {"retrieval": {"k": 7}}}
    config = make_config(settings(preset="paper", **given))
    assert (config.knowledge_base.retrieval.k, config.knowledge_base.retrieval.alpha) == (7, 0.5)


def test_the_full_size_example_is_valid_and_names_the_models() -> None:
    config = load_config(SCENES.parent / "full" / "dmc.yaml")
    models = [name for part in config.components() for name, _ in part.settings.models().values()]
    assert models == [
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "Salesforce/blip2-opt-2.7b",
        "stabilityai/stable-diffusion-xl-base-1.0",
    ]


def test_the_resolved_settings_give_the_same_config_again(tmp_path: Path) -> None:
    config = make_config(settings(), tmp_path)
    again = make_config(yaml.safe_load(config.resolved()), tmp_path)
    assert again == config


def test_offline_a_missing_model_names_the_command_that_fetches_it() -> None:
    config = make_config(settings(captioner={"kind": "blip2"}, run={"offline": True}))
    with pytest.raises(ConfigError, match="rag4dmc fetch"):
        config.generator_component("text").resolve(config.base, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "must be a mapping"),
        ("a: [", "not YAML"),
        ("name: x\nnam: y", "unknown key|field required"),
        ("base: /", "base: unknown key"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "dmc.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told) as caught:
        load_config(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("retrieval.k", 0, "greater than or equal to 1, or 'auto'"),
        ("retrieval.k", "many", "a valid integer, unable to parse string as an integer, or 'auto'"),
        ("retrieval.alpha", 1.5, "less than or equal to 1, or 'auto'"),
        ("retrieval.alpha", -0.1, "greater than or equal to 0, or 'auto'"),
        ("retrieval.examples", 0, "greater than or equal to 1"),
        ("alignment.gamma", -1.0, "greater than or equal to 0, or 'auto'"),
        ("alignment.gamma", float("inf"), "a finite number, or 'auto'"),
        ("filter.tau_cent", 1.5, "less than or equal to 1, or 'auto'"),
        ("index.probes", 0, "greater than or equal to 1, or 'auto'"),
        ("index.lists", -3, "greater than or equal to 1, or 'auto'"),
        ("filter.tau_inst", -3.0, "greater than or equal to -2, or 'auto'"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_field_rule_and_value(
    field: str, value: object, rule: str
) -> None:
    section, name = field.split(".")
    with pytest.raises(ConfigError) as caught:
        make_config(settings(knowledge_base={section: {name: value}}))
    assert str(caught.value) == f"knowledge_base.{field}: input should be {rule}; got {value!r}"


def test_two_external_sets_need_two_names() -> None:
    twice = [{"name": "one", "path": "a.parquet"}, {"name": "one", "path": "b.parquet"}]
    with pytest.raises(ConfigError, match="'one' stands twice"):
        make_config(settings(external=twice))


@pytest.mark.parametrize("name", ["..", ".", "...", ".hidden", "-x", "a/b", "", "a\nb"])
def test_a_name_is_that_of_one_folder_right_below(name: str) -> None:
    external = [{"name": name, "path": "a.parquet"}]
    for given, field in (
        ({"external": external}, "external.0.name"),
        ({"name": name}, "name"),
        ({"export": [{"name": name}]}, "export.0.name"),
    ):
        with pytest.raises(ConfigError) as caught:
            make_config(settings(**given))
        assert str(caught.value).startswith(f"{field}: string should match pattern")
        assert str(caught.value).endswith(f"; got {name!r}")


@pytest.mark.parametrize("name", ["internal", "Internal"])
def test_no_external_set_is_called_as_the_datasets_own_pairs_are(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(settings(external=[{"name": name, "path": "a.parquet"}]))
    told = f"external.0.name: must not be 'internal', which .* are called; got {name!r}"
    assert re.fullmatch(told, str(caught.value))


def test_two_exports_of_one_format_need_two_names() -> None:
    twice = [{"format": "llava"}, {"format": "llava", "only": "observed"}]
    with pytest.raises(ConfigError, match="export: every name must be its own; 'llava' stands"):
        make_config(settings(export=twice))
    config = make_config(settings(export=[twice[0], twice[1] | {"name": "observed"}]))
    assert [each.place for each in config.export] == ["llava", "observed"]


def test_a_class_of_ones_own_may_lie_in_the_folder_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path("examples/own_captioner.py").read_text(encoding="utf-8")
    (tmp_path / "a_module_of_mine.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    part = Component.choose("captioner", {"kind": "a_module_of_mine:AgreementCaptioner"}, {})
    assert part.cls.__name__ == "AgreementCaptioner"


@pytest.mark.parametrize(
    ("n", "text", "grounded"),
    [(1, 0.5, "y"), (4, 0.5, "ynyn"), (5, 0.5, "ynyny"), (4, 1, "nnnn"), (4, 0.25, "yyyn")],
)
def test_a_share_of_the_candidates_is_drawn_without_an_example(
    n: int, text: float, grounded: str
) -> None:
    def told(config: Config, half: Modality, needs: Needs) -> str:
        return "".join("ny"[one] for one in config.generation.grounded_of(half, needs))

    generation = {"n": n, "ungrounded": {"text": text}}
    config = make_config(settings(generation=generation))
    assert told(config, "text", Needs()) == grounded
    assert told(config, "image", Needs()) == "y" * n
    paper = make_config(settings(preset="paper", generation={"n": n}))
    assert told(paper, "text", Needs()) == "y" * n
    assert told(config, "text", Needs(example=True)) == "y" * n
    assert told(config, "text", Needs(text=False, image=False)) == "n" * n
    direct = make_config(settings(generation=generation | {"grounded": False}))
    assert told(direct, "image", Needs()) == "n" * n
    # Few are the first of many.
    many = make_config(settings(generation=generation | {"n": {"least": 1, "most": 20}}))
    assert told(many, "text", Needs()).startswith(grounded)


def test_one_generator_may_be_left_out_but_not_both() -> None:
    config = make_config(settings(image_generator=None))
    assert config.made == ("text",)
    assert [part.section for part in config.components()] == ["encoder", "captioner"]
    with pytest.raises(ConfigError, match="captioner or image_generator must be given"):
        make_config(settings(image_generator=None, captioner=None))


@pytest.mark.parametrize("format", [{}, {"lossless": True}, {"format": "png"}, {"format": "jpeg"}])
def test_settings_as_they_are_kept_are_a_config(format: dict[str, Any]) -> None:
    config = make_config(settings() | {"generation": {"image_format": format}})
    again = make_config(yaml.safe_load(config.resolved()))
    assert again.generation == config.generation
    assert derive(config, {}, Path("elsewhere")).generation == config.generation


def test_a_floor_of_confidence_needs_a_check() -> None:
    scoring = {"caption": {"floor_confidence": 0.5}}
    with pytest.raises(
        ConfigError, match="floor_confidence needs a check.*got 0.5 with run.check 0"
    ):
        make_config(settings(selection=scoring) | {"run": {"check": 0}})
    assert make_config(settings(selection=scoring)).run.check == "auto"


def test_without_a_check_all_candidates_are_drawn_and_a_config_that_turns_it_off_is_refused() -> (
    None
):
    generation = {"n": {"least": 2, "most": 6}}
    config = make_config(settings(generation=generation))
    assert config.generation.rounds == (2, 3, 4, 6)
    assert derive(config, {}, Path("elsewhere")).generation.n == 6
    assert make_config(yaml.safe_load(config.resolved())).generation == config.generation
    with pytest.raises(
        ConfigError, match="generation.n needs a check.*got 2 to 6 with run.check 0"
    ):
        make_config(settings(generation=generation) | {"run": {"check": 0}})
