"""The variants that evaluation compares: each is a set of settings of the one pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.export.cutoff import Half
from pipeline.storage.errors import ConfigError


@dataclass(frozen=True)
class Variant:
    """A way to deal with incomplete rows.

    Attributes
    ----------
    name, description : str
    changes : mapping of dotted setting to value
        What it changes in the config.
    generates : bool
        False where no run is needed: rows are left out, or the truth is taken.
    halves : bool
        Whether it tells the halves apart, and says nothing where the config makes only one.
    best : mapping of half to share
        Of the generated halves, which share is trained on, best score first; all by default.
    """

    name: str
    description: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    generates: bool = True
    halves: bool = False
    best: Mapping[Half, float] = field(default_factory=dict)


_BOTH = {"knowledge_base.sources": ["internal", "external"]}
_CROSS = {"knowledge_base.retrieval.mode": "cross"}
# Retrieval is the config's own.
_OURS = _BOTH | {"knowledge_base.purify": True}

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("drop", "incomplete rows are left out", generates=False),
        Variant(
            "direct",
            "generated without any example",
            {"generation.grounded": False, "knowledge_base.sources": ["internal"]},
        ),
        Variant(
            "nearest",
            "the retrieved example itself is the answer",
            _OURS
            | {
                "generation.n": 1,
                "captioner": {"kind": "nearest"},
                "image_generator": {"kind": "nearest"},
            },
        ),
        Variant(
            "vanilla",
            "internal pairs, cross-modal retrieval",
            {"knowledge_base.sources": ["internal"]} | _CROSS,
        ),
        Variant(
            "combined",
            "internal and raw external pairs, cross-modal retrieval",
            _BOTH | {"knowledge_base.purify": False} | _CROSS,
        ),
        Variant(
            "purified",
            "internal and purified external pairs, cross-modal retrieval",
            _BOTH | {"knowledge_base.purify": True} | _CROSS,
        ),
        Variant("rag4dmc", "internal and purified external pairs, retrieval as configured", _OURS),
        Variant("complete", "the truth", generates=False),
        Variant(
            "without-alignment",
            "rag4dmc whose external pairs are filtered, not rotated",
            # A pull of this weight leaves no rotation but the identity.
            _OURS | {"knowledge_base.alignment.gamma": 1e6},
        ),
        Variant(
            "without-filter",
            "rag4dmc that keeps every external pair, rotated",
            # Below the least that either figure can be.
            _OURS
            | {"knowledge_base.filter.tau_cent": -2.0, "knowledge_base.filter.tau_inst": -2.0},
        ),
        Variant(
            "without-fusion",
            "rag4dmc with the first stage of retrieval alone",
            _OURS | {"knowledge_base.retrieval.mode": "intra"},
        ),
        Variant(
            "without-selection",
            "rag4dmc that takes the first valid candidate",
            _OURS
            | {
                f"selection.{half}.{weight}": 0.0
                for half, weights in (
                    ("caption", ("lambda1", "lambda2", "agreement")),
                    ("image", ("lambda1", "lambda2")),
                )
                for weight in weights
            },
        ),
        Variant(
            "texts-alone",
            "rag4dmc that leaves rows without an image out",
            _OURS | {"image_generator": None},
            halves=True,
        ),
        Variant(
            "images-alone",
            "rag4dmc that leaves rows without a text out",
            _OURS | {"captioner": None},
            halves=True,
        ),
        Variant(
            "better-images",
            "rag4dmc whose worse half of the images, by score, is left out",
            _OURS,
            halves=True,
            best={"image": 0.5},
        ),
        Variant("one-candidate", "rag4dmc with n = 1", _OURS | {"generation.n": 1}),
        Variant("ten-candidates", "rag4dmc with n = 10", _OURS | {"generation.n": 10}),
    )
}

# The rows of the paper's table, and the ablations of single steps.
TABLE = ("drop", "direct", "nearest", "vanilla", "combined", "purified", "rag4dmc", "complete")
ABLATIONS = (
    "without-alignment",
    "without-filter",
    "without-fusion",
    "without-selection",
    "texts-alone",
    "images-alone",
    "better-images",
    "one-candidate",
    "ten-candidates",
)


def name_variants(text: str | Sequence[str]) -> list[str]:
    """Variants by comma; `table` and `ablations` stand for theirs.

    Raises
    ------
    ConfigError
        One is unknown.
    """
    asked = text.split(",") if isinstance(text, str) else list(text)
    names: list[str] = []
    for name in (one.strip() for one in asked):
        if name in ("table", "ablations"):
            names += TABLE if name == "table" else ABLATIONS
        elif name in VARIANTS:
            names.append(name)
        else:
            known = ", ".join(("table", "ablations", *VARIANTS))
            raise ConfigError(f"--variants: must be among {known}; got {name!r}")
    return list(dict.fromkeys(names))
