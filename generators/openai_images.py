"""Images by any OpenAI-compatible server, over its image generations and edits."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

from PIL import Image, ImageOps
from pydantic import Field, field_validator

from generators.base import Candidate, ImageRequest, Needs
from generators.grounding import usable_examples
from generators.prompts import ImagePromptSettings
from generators.sent_pictures import Pictures, Upload
from generators.service_errors import ServiceError
from generators.service_generator import ServiceGenerator
from generators.service_question import Question
from generators.service_settings import ServiceSettings

# What such servers write; Pillow opens much more, some of it by programs of others.
FORMATS = ("PNG", "JPEG", "WEBP")
# Characters of a prompt that the server wrote instead, in a note.
MOST_OF_A_PROMPT = 2000


class OpenAIImageSettings(ImagePromptSettings, ServiceSettings):
    """Settings of `OpenAIImageGenerator`."""

    grounding: Literal["none", "prompt", "edit"] = Field(
        "prompt",
        description="How the example grounds the image: not, by its caption, or by its image.",
    )
    size: str = Field("1024x1024", description="Pixels to ask for, as the server writes them.")
    response_format: Literal["b64_json"] | None = Field(
        "b64_json", description="Ask for the image in the answer; None where it always comes so."
    )
    longest_side: int = Field(
        1024, ge=16, description="Example images are shrunk to this many pixels."
    )
    max_pixels: int = Field(64_000_000, ge=1, description="Larger images in answers are refused.")

    def needs(self) -> Needs:
        """The half of an example by which it grounds the image."""
        return Needs(
            text=self.grounding == "prompt",
            image=self.grounding == "edit",
            side=self.longest_side,
        )

    def drawn_pixels(self) -> int | None:
        """Pixels that are asked for; None where the server decides."""
        if self.size == "auto":
            return None
        width, height = map(int, self.size.split("x"))
        return width * height

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        sides = value.split("x")
        if value != "auto" and (len(sides) != 2 or not all(side.isdigit() for side in sides)):
            raise ValueError(f"size must read like 1024x1024, or auto; got {value!r}")
        return value


class OpenAIImageGenerator(ServiceGenerator[ImageRequest]):
    """Images of texts by a model behind a server."""

    Settings = OpenAIImageSettings
    settings: OpenAIImageSettings

    def _question(self, request: ImageRequest, pictures: Pictures) -> Question:
        settings = self.settings
        usable, dropped = usable_examples(request.examples, settings.needs(), most=1)
        prompt = settings.template.format(text=request.text)
        if usable and settings.grounding == "prompt":
            prompt = settings.example_template.format(
                text=request.text, example=usable[0].text.strip()
            )
        lacking = settings.grounding != "none" and not usable
        notes = ("no example: drawn from the text alone",) if lacking else ()
        fields = {
            "prompt": prompt,
            "n": 1,
            "size": settings.size,
            "response_format": settings.response_format,
        }
        shown = tuple(example.id for example in usable)
        path, uploads = "images/generations", []
        image = usable[0].image if usable else None
        if settings.grounding == "edit" and image is not None:
            picture = pictures.encoded(image, usable[0].file)
            name = f"example.{picture.media_type.removeprefix('image/')}"
            path = "images/edits"
            uploads = [Upload("image", name, picture.content, picture.media_type)]
        return Question(path, fields, prompt, notes, shown, dropped, uploads)

    def _candidate(self, seed: int, question: Question, answer: dict[str, Any]) -> Candidate:
        image = self._image(answer)
        revised = answer["data"][0].get("revised_prompt")
        if not isinstance(revised, str) or revised.strip() in ("", question.prompt.strip()):
            return question.candidate(seed, image=image)
        shown = revised[:MOST_OF_A_PROMPT] + "…" * (len(revised) > MOST_OF_A_PROMPT)
        return question.candidate(seed, f"the server wrote another prompt: {shown}", image=image)

    def _image(self, answer: dict[str, Any]) -> Image.Image:
        """The image in an answer.

        Raises
        ------
        ServiceError
            When there is none, it can't be decoded, or it is larger than allowed.
        """
        try:
            first = answer["data"][0]
            encoded = first.get("b64_json")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ServiceError("the answer holds no data[0]") from error
        if not isinstance(encoded, str):
            # Fetching an address that a server names would reach beyond what was consented to.
            found = "a url" if first.get("url") else "nothing"
            raise ServiceError(f"data[0] holds {found} instead of b64_json; set response_format")
        try:
            content = base64.b64decode(encoded, validate=True)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height <= self.settings.max_pixels:
                # Transparency stays: plain RGB would show whatever colour hides behind it.
                return ImageOps.exif_transpose(image)
        except Exception as error:  # noqa: BLE001  Pillow's plugins raise anything
            raise ServiceError(f"the answer's image can't be decoded: {error}") from error
        raise ServiceError(
            f"the image has {image.width} x {image.height} pixels; "
            f"max_pixels is {self.settings.max_pixels}"
        )
