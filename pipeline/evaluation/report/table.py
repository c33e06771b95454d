"""A table of text, for the terminal, the page and Markdown alike, and how figures stand in it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation.results.results import Results

# Where there is no figure.
NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    title, note : str
    headings : tuple of str
        Of the columns; the first column is text, the others are figures.
    rows : tuple of tuples of str
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table in GitHub's Markdown, without its title."""
        lines = [
            "| " + " | ".join(self.headings) + " |",
            "| --- |" + " ---: |" * (len(self.headings) - 1),
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")


def signed(mean: float, half: float) -> str:
    return f"{mean:+z.3f} ± {half:.3f}"


def ordering_told(better: str, worse: str, claim: str) -> str:
    return f"{claim}{': ' if claim else ''}{better} − {worse}"


def draws_told(results: Results) -> str:
    """What a note says of several draws."""
    draws = results.facts.get("draws", 1)
    return f", {draws} draws of test set and mask together" if draws > 1 else ""
