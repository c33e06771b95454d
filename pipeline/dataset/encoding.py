"""How generated pictures are written: their file format, and what is seen of them afterwards."""

from __future__ import annotations

import io
from typing import Any, Literal

from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from pipeline.dataset.decoding import to_rgb
from pipeline.dataset.images import encode

# The most pixels a side that the formats hold; longer pictures become PNG.
MOST_SIDE = {"webp": 16_383, "jpeg": 65_500}


class ImageFormat(BaseModel):
    """The format of generated pictures."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["webp", "jpeg", "png"] = Field("webp", description="webp, jpeg or png")
    quality: int = Field(90, ge=1, le=100, description="of a lossy webp or a jpeg")
    lossless: bool = Field(False, description="of webp; png always is, jpeg never")

    @model_validator(mode="after")
    def _of_one_kind(self) -> ImageFormat:
        if self.format == "jpeg" and self.lossless:
            raise ValueError("jpeg is never lossless; got lossless true")
        if self.exact and "quality" in self.model_fields_set:
            raise ValueError(f"quality is for lossy formats; {self} has none, got {self.quality}")
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What validates again: without a quality where there is none."""
        values: dict[str, Any] = dump(self)
        if self.exact:
            values.pop("quality", None)
        return values

    @property
    def exact(self) -> bool:
        """Whether what is written is what was drawn."""
        return self.format == "png" or self.lossless

    def __str__(self) -> str:
        if self.format == "png":
            return "png"
        return f"{self.format}, {'lossless' if self.lossless else f'quality {self.quality}'}"

    def identity(self) -> dict[str, Any]:
        """What the written bytes depend on."""
        return {"format": self.format} if self.exact else self.model_dump(exclude={"lossless"})

    def encode(self, image: Image.Image) -> bytes:
        """The bytes of a picture."""
        too_long = max(image.size) > MOST_SIDE.get(self.format, 0)
        if self.exact or too_long:
            return encode(image, "png" if self.format == "png" or too_long else "webp")
        buffer = io.BytesIO()
        if self.format == "jpeg":
            # It holds no transparency, which is white to whoever decodes the others.
            to_rgb(image).save(buffer, "JPEG", quality=self.quality)
        else:
            image.save(buffer, "WEBP", quality=self.quality, method=4)
        return buffer.getvalue()

    def written(self, image: Image.Image) -> tuple[Image.Image, bytes | None]:
        """A picture as whoever reads it back will see it, and its bytes where it is another.

        What is transparent in it is seen on white, whatever colours lie there.
        """
        if self.exact and image.mode == "RGB":
            return image, None
        data = self.encode(image)
        return to_rgb(Image.open(io.BytesIO(data))), data

    def of(self, image: Image.Image) -> str:
        """How a picture is written: PNG where it is too long for the format."""
        return "png" if max(image.size) > MOST_SIDE.get(self.format, 0) else str(self)
