"""Settings of whatever asks an OpenAI-compatible server."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from generators.usage import Price


class ServiceSettings(BaseModel):
    """Settings shared by everything that asks a server."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["openai"] = Field("openai", description="An OpenAI-compatible server.")
    base_url: str = Field(
        description="Address of the server up to the version, such as http://localhost:8000/v1."
    )
    model: str = Field(min_length=1, description="Name of the model at the server.")
    send_data: bool = Field(
        False, description="Consent: rows and examples leave this machine for base_url."
    )
    api_key_env: str | None = Field(
        "OPENAI_API_KEY",
        description="Environment variable that holds the key; None where the server wants none.",
    )
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for an answer.")
    retries: int = Field(
        8,
        ge=0,
        description="More tries after one that may pass later, half a second after the first and"
        " up to 8 later on, or when the server says.",
    )
    concurrency: int = Field(
        8, ge=1, description="Most requests under way at once; fewer while the server answers 429."
    )
    max_requests: int | None = Field(
        None,
        ge=1,
        description="Most requests a process may send, retries included; then the run ends, and the"
        " next one goes on, a block (run.block_size rows) at a time. None for any.",
    )
    price: Price | None = Field(
        None,
        description="What the server asks for a million tokens in and out, and a picture; the summary and"
        " `inspect` tell the cost.",
    )
    send_seed: bool = Field(
        True, description="Send a seed with each request; off for servers that know no such field."
    )
    longest_side: int = Field(768, ge=16, description="Images are shrunk to this many pixels.")
    lossless: bool = Field(
        False, description="Send pictures as PNG; otherwise as JPEG, a fifth of the work."
    )
    quality: int = Field(90, ge=1, le=95, description="Of the JPEGs that are sent.")
    original_bytes: int = Field(
        400_000,
        ge=0,
        description="A picture within longest_side whose file (JPEG or PNG) is at most so large is sent"
        " as that file, less its metadata; 0 to encode all anew.",
    )
    background: str = Field("white", description="What shows through a transparent image.")
    extra: dict[str, Any] = Field(
        default_factory=dict, description="More fields of the request, as the server has them."
    )

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            _ = url.port
        except ValueError as error:
            raise ValueError(f"base_url is not an address: {error}") from error
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url must start with http:// or https://; got {value!r}")
        if url.username is not None or url.password is not None:
            raise ValueError("base_url must not hold a user or password; use api_key_env")
        return value.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _own_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        # What is recorded of a candidate would not be what the server got.
        if taken := sorted({"model", "messages", "prompt", "image"} & value.keys()):
            raise ValueError(f"extra must not hold {taken[0]}, which the generator writes itself")
        return value

    @model_validator(mode="after")
    def _consent(self) -> ServiceSettings:
        if not self.send_data:
            raise ValueError(
                f"send_data must be true for kind {self.kind}: rows and examples are sent to {self.base_url}"
            )
        return self

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Nothing that is loaded here."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What is asked and of whom, not how patiently."""
        pace = {"timeout", "retries", "concurrency", "max_requests", "price"}
        return self.model_dump(mode="json", exclude=pace | {"send_data", "api_key_env"})
