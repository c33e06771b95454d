"""The dataset card of an export: what is generated, by what, how good, and from whose pairs."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.export.cutoff import below
from pipeline.export.settings import ExportSettings
from pipeline.ledger.review import Verdict, state

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_HALF = {"image": "images", "text": "texts"}


class Tally:
    """Counts what is exported and what is left out, batch by batch.

    Parameters
    ----------
    verdicts : dict, optional
        A person's verdicts by id; a half that was rejected is not exported, one that was accepted
        is, whatever its score.
    cuts : mapping, optional
        Least scores by half.

    Attributes
    ----------
    rows : int
        Rows exported.
    left_out : Counter
        Rows that are not, by why.
    missing : Counter
        Exported rows by the half that was generated: "image", "text", or None for observed rows.
    generators : Counter
        Generated halves by (missing, generator, model, revision).
    sources : Counter
        How often pairs of a (source, licence) grounded a generated half.
    scores : dict
        Scores of the generated halves by missing half.
    accepted : int
        Generated halves that a person looked at and accepted.
    """

    def __init__(
        self,
        verdicts: Mapping[str, Verdict] | None = None,
        cuts: Mapping[str, float] | None = None,
    ) -> None:
        self._verdicts = verdicts or {}
        self._cuts = dict(cuts or {})
        self.rows = 0
        self.left_out: Counter[str] = Counter()
        self.missing: Counter[str | None] = Counter()
        self.generators: Counter[tuple[str, str, str, str]] = Counter()
        self.sources: Counter[tuple[str, str]] = Counter()
        self.scores = {"image": array("d"), "text": array("d")}
        self.accepted = 0

    def count(self, batch: pa.RecordBatch, only: str) -> pa.RecordBatch:
        """Keep the rows of a batch that are exported, and count both kinds."""
        status = batch.column("status")
        completion = batch.column("completion")
        score = pc.struct_field(completion, "score")
        generated = pc.equal(status, "completed")
        usable = pc.or_(generated, pc.equal(status, "observed"))
        asked = usable if only == "all" else pc.equal(status, only)
        low = below(batch.column("missing"), generated, score, self._cuts)
        said = self._said(batch)
        unwanted = pc.equal(said, "rejected")
        judged = pc.or_(unwanted, pc.equal(said, "accepted"))
        low = pc.and_(low, pc.invert(judged))
        kept = pc.and_(asked, pc.invert(pc.or_(low, unwanted)))
        for name in ("rejected", "failed"):
            self._leave_out(name, pc.equal(status, name))
        self._leave_out("not asked for", pc.and_(usable, pc.invert(asked)))
        self._leave_out("below the score", pc.and_(asked, low))
        self._leave_out("rejected in review", pc.and_(asked, unwanted))
        self.accepted += pc.sum(pc.and_(kept, pc.equal(said, "accepted"))).as_py() or 0
        found = batch.filter(kept)
        self._exported(found)
        return found

    def _said(self, batch: pa.RecordBatch) -> pa.Array:
        """What a person said of each row; "" where nothing was."""
        if not self._verdicts:
            return pa.array([""] * len(batch))
        rows = batch.select(["id", "status", "completion"]).to_pylist()
        return pa.array([state(self._verdicts.get(row["id"]), row) or "" for row in rows])

    def _leave_out(self, why: str, mask: pa.Array) -> None:
        count = pc.sum(mask).as_py() or 0
        if count:
            self.left_out[why] += count

    def _exported(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        generated = batch.filter(pc.equal(batch.column("status"), "completed"))
        self.missing[None] += batch.num_rows - generated.num_rows
        completion = generated.column("completion")
        fields = ("generator", "model", "revision", "score", "examples")
        columns = [pc.struct_field(completion, name).to_pylist() for name in fields]
        halves = generated.column("missing").to_pylist()
        for half, generator, model, revision, score, examples in zip(halves, *columns, strict=True):
            self.missing[half] += 1
            self.generators[(half, generator or "", model or "", revision or "")] += 1
            if score is not None:
                self.scores[half].append(score)
            for example in examples or ():
                self.sources[(example["source"] or "", example["licence"] or "")] += 1


def card(
    name: str,
    settings: ExportSettings,
    tally: Tally,
    usage: str,
    keys: Mapping[str, str] | None = None,
) -> str:
    """Write the card as Markdown, with the front matter that dataset hubs read.

    Parameters
    ----------
    name
        The dataset's name.
    settings
        What was asked for.
    tally
        What was exported.
    usage
        How to read this layout, as Markdown.
    keys
        By column what the layout calls it.
    """
    generated = tally.missing["image"] + tally.missing["text"]
    share = generated / tally.rows
    parts = [
        _front_matter(name, settings.format),
        f"# {_plain(name)}, completed",
        (
            f"{tally.rows:,} image-text pairs. {tally.missing[None]:,} were observed whole;"
            f" in {generated:,} ({share:.1%}) one half was **generated by a model** for want of a real"
            " one, grounded in real pairs that were retrieved for it."
        ),
        _table(
            ("status", "generated half", "rows"),
            [
                ("observed", "none", f"{tally.missing[None]:,}"),
                ("completed", "text", f"{tally.missing['text']:,}"),
                ("completed", "image", f"{tally.missing['image']:,}"),
            ],
        ),
        "`status` and `missing` tell a generated half from an observed one in every row.",
        f"A person looked at {tally.accepted:,} of the generated halves and accepted them."
        if tally.accepted
        else "",
        _left_out(settings, tally),
        "## Reading it",
        usage,
        _renamed(keys or {}),
    ]
    if generated:
        parts += ["## What generated it", _generators(tally), "## Scores", _scores(tally)]
        parts += ["## What grounded it", _sources(tally)]
    parts += [
        "## Limits",
        (
            "A generated half is a model's guess. It may be wrong, repeat a bias of the model or of the"
            " pairs that grounded it, or look alike from row to row. For evaluation use observed rows"
            " alone. The licences of the observed halves are those of the dataset that was completed;"
            " this card does not know them. Images and texts are those that were observed, unchanged,"
            " unless the layout says otherwise above."
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(name: str, format: str) -> str:
    lines = ["---", f"pretty_name: {_quoted(name)}", "tags:", "- image-text", "- synthetic"]
    if format == "parquet":
        lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train"]
        lines += ["    path: data/*.parquet"]
    return "\n".join([*lines, "---"])


def _left_out(settings: ExportSettings, tally: Tally) -> str:
    filters = [f"only {settings.only} rows"] if settings.only != "all" else []
    for half, least in settings.min_score.items():
        filters.append(f"generated {_HALF[half]} with a score of {least:g} or more")
    for half, share in settings.best.items():
        filters.append(f"the best {share:.0%} of the generated {_HALF[half]} by score")
    said = f"Filters: {'; '.join(filters)}. " if filters else ""
    if not tally.left_out:
        return said + "No row of the completed dataset is left out."
    counts = ", ".join(f"{count:,} {why}" for why, count in sorted(tally.left_out.items()))
    return f"{said}Left out of the completed dataset: {counts}."


def _renamed(keys: Mapping[str, str]) -> str:
    other = [f"{_plain(name)} is {_plain(key)}" for name, key in keys.items() if name != key]
    if not other:
        return ""
    return f"Columns whose names this layout uses itself have others: {', '.join(other)}."


def _generators(tally: Tally) -> str:
    rows = [
        (half, generator, model, revision or "not pinned", f"{count:,}")
        for (half, generator, model, revision), count in tally.generators.most_common()
    ]
    return _table(("half", "generator", "model", "revision", "rows"), rows)


def _scores(tally: Tally) -> str:
    rows = []
    for half, scores in tally.scores.items():
        if scores:
            found = np.quantile(np.frombuffer(scores), _QUANTILES)
            rows.append((_HALF[half], f"{len(scores):,}", *(f"{value:.3f}" for value in found)))
    if not rows:
        return "None of the generated halves has a score."
    names = ("generated", "rows", *(f"{q:.0%}" for q in _QUANTILES))
    said = "Quantiles of the selection score. Scores of texts and of images are different scales."
    return f"{said}\n\n{_table(names, rows)}"


def _sources(tally: Tally) -> str:
    if not tally.sources:
        return "No retrieved pair: the generators were given the observed half alone."
    rows = [
        (source or "not named", licence or "not stated", f"{count:,}")
        for (source, licence), count in tally.sources.most_common()
    ]
    said = "Pairs that were given to a generator as examples, by where they are from."
    return f"{said}\n\n{_table(('source', 'licence', 'times used'), rows)}"


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(names)
    lines = [names, ["---"] * len(names), *[[_plain(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text from data or settings, so that it stays text in Markdown and in its HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|#!":
        text = text.replace(mark, "\\" + mark)
    return text


def _quoted(text: str) -> str:
    import json

    return json.dumps(" ".join(text.split()))
