"""Markdown of a dataset card, whatever the text in it comes from."""

from __future__ import annotations

from collections.abc import Iterable


def table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(names)
    lines = [names, ["---"] * len(names), *[[plain(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(text: str) -> str:
    """Text from data or settings, so that it stays text in Markdown and in its HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|#!":
        text = text.replace(mark, "\\" + mark)
    return text
