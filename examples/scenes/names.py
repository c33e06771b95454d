"""Names and keywords of the concepts: what a picture is called, and what else it might be called.

Drawings are found by the CLDR short name; the vocabulary is learned from names and keywords.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from examples.scenes.sources import WORK, npm_package

SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}


@dataclass(frozen=True)
class Concept:
    """One emoji without skin tones.

    Attributes
    ----------
    id : str
        Code points in lower case, joined by hyphens.
    name : str
        CLDR short name, lower case.
    title : str
        The name that Unicode's character table and picture sets use; may equal `name`.
    keywords : tuple of str
        CLDR keywords, without those that only repeat the name.
    category, subcategory : str
        Unicode's groups.
    image : str
        File name in the npm picture sets.
    """

    id: str
    name: str
    title: str
    keywords: tuple[str, ...]
    category: str
    subcategory: str
    image: str


def plain(text: str) -> str:
    """Lower the case and reduce punctuation to what a small vocabulary holds."""
    text = text.lower().replace("’", "'").replace("“", "").replace("”", "").replace("&", "and")
    text = text.replace("\n", " ").replace("_", " ").replace("⊛", "")
    return re.sub(r"\s+", " ", text).strip()


@lru_cache(maxsize=2)
def load_concepts(work: Path = WORK) -> tuple[Concept, ...]:
    """Read every concept that the picture sets share, in Unicode's order.

    Returns
    -------
    tuple of Concept
        About 1,900 concepts, skin tones and components left out.
    """
    pictures = json.loads((npm_package("twemoji", work) / "emoji.json").read_text("utf-8"))
    names = json.loads((npm_package("names", work) / "en" / "data.json").read_text("utf-8"))

    def key(code: str) -> str:
        return code.upper().replace("-FE0F", "")

    named = {key(row["hexcode"]): row for row in names}
    concepts = []
    for row in sorted(pictures, key=lambda r: r["sort_order"]):
        parts = set(row["unified"].split("-"))
        found = named.get(key(row["unified"]))
        if found is None or row["category"] == "Component" or parts & SKIN_TONES:
            continue
        name = plain(found["label"])
        keywords = tuple(plain(tag) for tag in found.get("tags", []) if plain(tag) != name)
        concepts.append(
            Concept(
                id=row["unified"].lower(),
                name=name,
                title=plain(row["name"] or found["label"]),
                keywords=keywords,
                category=row["category"],
                subcategory=row["subcategory"],
                image=row["image"],
            )
        )
    return tuple(concepts)
