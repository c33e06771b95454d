"""Settings of the BLIP-2 captioner, and the prompts that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from generators.base import Needs
from generators.checkpoints import CheckpointSettings
from generators.prompts import check_template, number_word
from generators.sampling import SamplingSettings

# Of larger pictures than this BLIP-2's processors, which scale to 224 or 364 pixels, see no more.
SIDE = 1024


class Blip2Settings(SamplingSettings, CheckpointSettings):
    """Settings of `Blip2Captioner`; the templates are those of the paper."""

    kind: Literal["blip2"] = Field("blip2", description="A BLIP-2 checkpoint, OPT or T5.")
    model: str = Field(
        "Salesforce/blip2-opt-2.7b",
        description="Model id, or a folder in the same format.",
    )
    template: str = Field(
        "Please write a caption of the image. Caption:",
        description="Prompt of a row without an example.",
    )
    example_template: str = Field(
        "Please write {count} captions of the image. {examples} Caption {next}:",
        description="Prompt with examples: {count} in words, {examples}, number of the {next}.",
    )
    example_item: str = Field(
        "Caption {number}: {example}",
        description="How one example stands within {examples}.",
    )
    stops: tuple[str, ...] = Field(
        ("\n", "Caption {after}:"),
        description="The caption ends before the first of these; {after} numbers the one after it.",
    )
    max_prompt_tokens: int | None = Field(
        None,
        ge=1,
        description="Most tokens of a prompt; None takes what the model has room for.",
    )
    background: str = Field("white", description="What shows through a transparent image.")

    @field_validator("template")
    @classmethod
    def _template(cls, value: str) -> str:
        return check_template("template", value, (), ())

    @field_validator("example_template")
    @classmethod
    def _example_template(cls, value: str) -> str:
        return check_template(
            "example_template", value, ("count", "examples", "next"), ("examples",)
        )

    @field_validator("example_item")
    @classmethod
    def _example_item(cls, value: str) -> str:
        return check_template("example_item", value, ("number", "example"), ("example",))

    @field_validator("stops")
    @classmethod
    def _stop_templates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_template("stops", stop, ("after",), ()) for stop in value)

    def needs(self) -> Needs:
        """The examples' captions, which stand in the prompt."""
        return Needs(image=False, side=SIDE)

    def render(self, examples: Sequence[str]) -> str:
        """The prompt with these example captions."""
        if not examples:
            return self.template
        items = [
            self.example_item.format(number=number, example=example.strip())
            for number, example in enumerate(examples, start=1)
        ]
        return self.example_template.format(
            count=number_word(len(examples) + 1),
            examples=" ".join(items),
            next=len(examples) + 1,
        )
