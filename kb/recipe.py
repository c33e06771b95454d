"""What a knowledge base is made by, besides its pairs: the settings, and what identifies them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kb.alignment import AlignmentSettings
from kb.filtering import FilterSettings
from kb.index import IndexSettings
from kb.mapping import MappingSettings
from kb.retrieval import RetrievalSettings

Source = Literal["internal", "external"]

# Raised when the same settings and pairs come to give another knowledge base: one that was made by
# the former method is then built anew.
METHOD = 8


class KnowledgeBaseSettings(BaseModel):
    """What the knowledge base is made of."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Source] = Field(
        default=["internal", "external"],
        min_length=1,
        description="sides that can be retrieved from",
    )
    purify: bool = Field(default=True, description="align and filter the external side")
    refit_share: float = Field(
        default=0.1,
        ge=0,
        description="share of the complete pairs that may come or go before mapping, filter and "
        "alignment are fitted anew; up to it new pairs simply join",
    )
    mapping: MappingSettings = Field(
        default_factory=MappingSettings, description="prediction of the missing half's embedding"
    )
    alignment: AlignmentSettings = Field(
        default_factory=AlignmentSettings, description="rotation of the external side"
    )
    filter: FilterSettings = Field(
        default_factory=FilterSettings, description="which external pairs are kept"
    )
    index: IndexSettings = Field(
        default_factory=IndexSettings, description="nearest-neighbour search"
    )
    retrieval: RetrievalSettings = Field(
        default_factory=RetrievalSettings, description="which pairs ground a row"
    )
    device: str = Field(default="auto", description="where products run: auto, cpu, cuda")

    @classmethod
    def paper(cls) -> KnowledgeBaseSettings:
        """What the paper has in place of what is ours; README names what stays in either case."""
        return cls(
            mapping=MappingSettings(method="mlp", external=0, residual=False),
            alignment=AlignmentSettings(gamma=0.0),
            filter=FilterSettings(
                tau_cent=0.6, tau_inst=0.6, instance="centroid", provisional_alignment=False
            ),
            retrieval=RetrievalSettings(
                mode="fusion", k=10, alpha=0.5, consensus=0, external_penalty=0
            ),
        )

    @property
    def external_fitted(self) -> bool:
        """Whether the mapping may be fitted to external pairs: only purified ones enter it."""
        return self.purify and "external" in self.sources and self.mapping.external != 0

    def identity(self) -> dict[str, Any]:
        """The settings that change the result, of which some do nothing beside others."""
        values = self.model_dump(mode="json", exclude={"device", "refit_share"})
        if "external" not in self.sources:
            del values["purify"]
        if not values.get("purify"):
            del values["alignment"], values["filter"]
        if not self.external_fitted:
            del values["mapping"]["external"]
        values["retrieval"] = self.retrieval.identity()
        return values


@dataclass(frozen=True)
class Recipe:
    """All that a knowledge base follows from, besides its pairs.

    Attributes
    ----------
    settings : KnowledgeBaseSettings
    random_state : int
    shared_space : bool
        Whether image and text embeddings share a space.
    encoder : mapping, optional
        What identifies the encoder, for the manifest.
    """

    settings: KnowledgeBaseSettings = field(default_factory=KnowledgeBaseSettings)
    random_state: int = 0
    shared_space: bool = True
    encoder: Mapping[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """Entries of the manifest that must agree for a knowledge base to be of use again."""
        entries = {
            "method": METHOD,
            "settings": self.settings.identity(),
            "random_state": self.random_state,
            "shared_space": self.shared_space,
            "encoder": self.encoder,
        }
        # As the manifest gives them back: tuples are lists there.
        return dict(json.loads(json.dumps(entries)))
