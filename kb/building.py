"""Building a knowledge base: map, align, filter, align, index, and measure how to retrieve."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kb import contents
from kb.embeddings import MODALITIES, Stacked
from kb.fitting import (
    captions_of,
    expected_queries,
    external_side,
    keep_held_out,
    predicts,
    trials_of,
    unseen_rows,
)
from kb.mapping import CrossModalMapping
from kb.pairs import Pairs, read_pairs
from kb.purification import Purified, purify
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.retrieval import FusionRetriever
from kb.retrieval.learning import FUSION, learn, save_fusions
from kb.retrieval.leave_one_out import judge_examples, select_retrieval
from kb.retrieval.penalty import learn_penalty
from kb.stopwatch import Stopwatch
from kb.storage import FORMAT_VERSION, digest_files, replacing, write_manifest
from kb.threads import threads_for

logger = logging.getLogger(__name__)


def build(folder: Path, internal: Pairs, external: Sequence[Pairs], recipe: Recipe) -> None:
    """Fits everything on these pairs and swaps the result into `folder` whole.

    What is checked and raised: see `KnowledgeBase.build`.
    """
    with threads_for(len(internal) + sum(map(len, external))):
        _build(folder, internal, external, recipe)


def _build(folder: Path, internal: Pairs, external: Sequence[Pairs], recipe: Recipe) -> None:
    settings, random_state = recipe.settings, recipe.random_state
    watch = Stopwatch()
    with replacing(folder) as building:
        groups = internal.groups()
        purified: Purified | None = None
        used = external if "external" in settings.sources else []
        if used and settings.purify:
            with watch.step("purification"):
                purified = purify(
                    internal.embeddings,
                    {m: Stacked([p.embeddings[m] for p in used]) for m in MODALITIES},
                    settings.filter,
                    settings.alignment,
                    random_state,
                    settings.device,
                    groups,
                )
            purified.evidence["warnings"] += _irrelevant(purified, used)
            for warning in purified.evidence["warnings"]:
                logger.warning("%s", warning)
            _save_purified(building, purified, used)
        with watch.step("pairs"):
            dimensions = {m: int(internal.embeddings[m].shape[1]) for m in MODALITIES}
            sides = _sides(internal, used, settings, purified)
            counts = contents.write_contents(building, sides, dimensions, 0)
            known: list[tuple[Pairs, contents.Origin]] = [(internal, "internal")]
            known += [(pairs, "external") for pairs in external]
            contents.write_table(building / "known.parquet", [contents.known_table(known, 0)])
        pairs = read_pairs(building / "pairs.arrow")
        embeddings = contents.open_contents(building)
        with watch.step("mapping"):
            mapping = CrossModalMapping(settings.mapping, random_state, settings.device)
            fitted = None
            if settings.external_fitted:
                fitted = external_side(pairs, embeddings, internal, random_state)
            own = internal.embeddings
            mapping.compare(own["image"], own["text"], groups, fitted)
        with watch.step("index"):
            expected = expected_queries(internal, mapping, unseen_rows(mapping), recipe)
            indexes = contents.build_indexes(
                building, embeddings, settings.index, random_state, settings.device, expected
            )
        with watch.step("retrieval"):
            retriever = FusionRetriever(
                embeddings,
                indexes,
                contents.id_array(pairs),
                None,
                settings.retrieval,
                recipe.shared_space,
                contents.digest_arrays(pairs),
            )
            trials = trials_of(retriever, internal, mapping.held_rows_)
            mapping.settle(partial(judge_examples, trials) if predicts(recipe) else None)
            (building / "mapping").mkdir()
            mapping.save(building / "mapping" / "mapping")
            pseudo = keep_held_out(building, mapping, internal)
            retrieval, evidence = select_retrieval(trials, pseudo)
            fusions, learned = learn(
                trials, pseudo, retrieval, groups[mapping.held_rows_], random_state
            )
            save_fusions(building / FUSION, str(retrieval.fusion), fusions)
            retriever.settings, retriever.fusions = retrieval, fusions
            asked = captions_of(internal.table, mapping.held_rows_)
            held = captions_of(pairs)
            penalty, preference = learn_penalty(
                retriever,
                settings.retrieval.external_penalty,
                contents.external_rows(pairs),
                trials,
                pseudo,
                None if held is None or asked is None else (held, asked),
                random_state,
            )
        with watch.step("digests"):
            files = digest_files(building)
        chosen = {
            **{name: getattr(retrieval, name) for name in contents.RETRIEVAL},
            contents.PENALTY: penalty,
        }
        manifest = {
            "format_version": FORMAT_VERSION,
            "version": contents.version(building, files, chosen),
            **recipe.identity(),
            "device": settings.device,
            "dimensions": dimensions,
            "counts": {
                **contents.count(building),
                "internal_at_fit": len(internal),
                "internal_changed": 0,
                "external_at_fit": sum(map(len, external)),
                "external_changed": 0,
                "external_sources": sorted(
                    {s for p in external for s in contents.count_by_source(p.table)}
                ),
            },
            "mapping": {
                "pairs": mapping.n_pairs_,
                "chosen": mapping.chosen_,
                "constant": mapping.constant_,
                "scores": mapping.scores_,
                "losses": mapping.losses_,
            },
            "purification": None if purified is None else purified.evidence,
            "retrieval": {
                **chosen,
                "evidence": evidence,
                "fusion": learned,
                "preference": preference,
            },
            "indexes": {m: index.describe() for m, index in indexes.items()},
            "additions": [addition(building, 0, internal, external, counts, 0)],
            "steps": watch.steps,
            "files": files,
        }
        write_manifest(building, manifest)


def addition(
    folder: Path,
    number: int,
    internal: Pairs | None,
    external: Sequence[Pairs],
    written: Mapping[contents.Origin, int],
    gone: int,
) -> dict[str, Any]:
    """One entry of the manifest's history: what came in together, what left, and when."""
    verdicts = contents.verdict_counts(folder, number)
    return {
        "number": number,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "internal": 0 if internal is None else len(internal),
        "external": sum(len(p) for p in external),
        "external_kept": written["external"],
        "external_dropped": {name: verdicts[name] for name in ("cluster", "instance")},
        "gone": gone,
    }


def _sides(
    internal: Pairs,
    external: Sequence[Pairs],
    settings: KnowledgeBaseSettings,
    purified: Purified | None,
) -> list[contents.Side]:
    sides = []
    if "internal" in settings.sources:
        sides.append(contents.Side(internal, "internal"))
    first = 0
    for pairs in external:
        if purified is None:
            sides.append(contents.Side(pairs, "external"))
        else:
            kept = purified.verdicts.kept[first : first + len(pairs)]
            sides.append(contents.Side(pairs, "external", kept, purified.fitted.alignments))
        first += len(pairs)
    return sides


def _irrelevant(purified: Purified, external: Sequence[Pairs]) -> list[str]:
    """A line for each external set of which nothing was kept."""
    verdicts, fitted = purified.verdicts, purified.fitted.filter
    lines = []
    first = 0
    for pairs in external:
        part = slice(first, first + len(pairs))
        first = part.stop
        if verdicts.kept[part].any():
            continue
        s_cent = float(verdicts.centroid_similarity[part].max())
        s_inst = float(verdicts.instance_similarity[part].max())
        lines.append(
            f"external set {pairs.table['source'][0].as_py()!r}: none of its {len(pairs)} pairs "
            f"passed the filter, and none is used (largest s_cent {s_cent:.2f}, tau_cent "
            f"{fitted.tau_cent_:.2f}; largest s_inst {s_inst:.2f}, tau_inst {fitted.tau_inst_:.2f})"
        )
    return lines


def _save_purified(folder: Path, purified: Purified, external: Sequence[Pairs]) -> None:
    table = contents.verdict_table(purified.verdicts, external, 0)
    contents.write_table(folder / "verdicts.parquet", [table])
    purified.fitted.save(folder)
