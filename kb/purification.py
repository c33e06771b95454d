"""Purification of the external side: align, filter, and align again on what was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kb.alignment import AlignmentSettings, OrthogonalAlignment
from kb.embeddings import MODALITIES, Modality, Rows, Subset, chunks, sample_rows, take
from kb.filtering import FEWEST_TO_MEASURE, ClusterFilter, FilterSettings, FilterVerdicts
from kb.filtering.clusters import external_clusters, joint

Alignments = dict[Modality, OrthogonalAlignment]

FILTER, PROVISIONAL, ALIGNMENT = FOLDERS = ("filter", "provisional_alignment", "alignment")


@dataclass(frozen=True)
class Purification:
    """The fitted filter and rotations, by which pairs that come later are judged as well.

    Attributes
    ----------
    filter : ClusterFilter
    provisional : dict or None
        Per modality the rotation that the filter was fitted with and judges in, whatever came of
        the rows that it kept; None where it was fitted without.
    alignments : dict or None
        Per modality the rotation of what is kept; None where nothing was kept.
    """

    filter: ClusterFilter
    provisional: Alignments | None
    alignments: Alignments | None

    def judge(self, external: Mapping[Modality, Rows]) -> FilterVerdicts:
        """A verdict for every external pair, per modality rows [m, d], read in chunks."""
        return self.filter.judge(joint_blocks(external, self.provisional))

    def save(self, folder: Path) -> None:
        """Writes the folders of `FOLDERS`, those that there is something for."""
        (folder / FILTER).mkdir()
        self.filter.save(folder / FILTER / "filter")
        for name, alignments in ((PROVISIONAL, self.provisional), (ALIGNMENT, self.alignments)):
            if alignments is not None:
                (folder / name).mkdir()
                for modality, alignment in alignments.items():
                    alignment.save(folder / name / modality)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Purification:
        """Reads what `save` wrote."""
        provisional, alignments = (
            {m: OrthogonalAlignment.load(folder / name / m, device) for m in MODALITIES}
            if (folder / name).is_dir()
            else None
            for name in (PROVISIONAL, ALIGNMENT)
        )
        return cls(ClusterFilter.load(folder / FILTER / "filter", device), provisional, alignments)


@dataclass(frozen=True)
class Purified:
    """What purification decided.

    Attributes
    ----------
    verdicts : FilterVerdicts
        One for every external row.
    fitted : Purification
    evidence : dict
        For the manifest; `warnings` is a list of what the user should know.
    """

    verdicts: FilterVerdicts
    fitted: Purification
    evidence: dict[str, Any]


def align(
    internal: Mapping[Modality, Rows],
    external: Mapping[Modality, Rows],
    settings: AlignmentSettings,
    random_state: int,
    device: str,
    start: Alignments | None = None,
) -> Alignments:
    """One fitted alignment a modality; `start` gives the rotations of an earlier fit."""
    fitted: Alignments = {}
    for modality in MODALITIES:
        before = None
        if start is not None and start[modality].gamma_ is not None:
            before = start[modality].rotation_
        fitted[modality] = OrthogonalAlignment(settings, random_state, device).fit(
            internal[modality], external[modality], start=before
        )
    return fitted


def joint_blocks(
    pairs: Mapping[Modality, Rows], alignments: Alignments | None, rows: int = 16_384
) -> Iterator[np.ndarray]:
    """Joint embeddings in blocks, after alignment where one is given."""
    both = zip(*(chunks(pairs[modality], rows) for modality in MODALITIES), strict=True)
    for blocks in both:
        halves = dict(zip(MODALITIES, blocks, strict=True))
        yield joint(*(_aligned(halves[m], m, alignments) for m in MODALITIES))


def _aligned(rows: np.ndarray, modality: Modality, alignments: Alignments | None) -> np.ndarray:
    return rows if alignments is None else alignments[modality].transform(rows)


def _joint_sample(
    pairs: Mapping[Modality, Rows], size: int, alignments: Alignments | None, random_state: int
) -> np.ndarray:
    rows = sample_rows(len(pairs["image"]), size, random_state)
    return joint(*(_aligned(take(pairs[m], rows), m, alignments) for m in MODALITIES))


def purify(
    internal: Mapping[Modality, Rows],
    external: Mapping[Modality, Rows],
    filter_settings: FilterSettings,
    alignment_settings: AlignmentSettings,
    random_state: int = 0,
    device: str = "cpu",
    groups: np.ndarray | None = None,
) -> Purified:
    """FilterVerdicts on all external pairs, and the rotations for those that are kept.

    Memory is that of the samples which k-means and the alignment learn from; external rows are
    read in chunks.

    Parameters
    ----------
    internal, external : per modality rows [n, d] and [m, d]
        n and m of at least 1; memory maps allowed.
    groups : int [n], optional
        Internal pairs that share a half have equal numbers (`kb.groups`); by default no two do.
    """
    for modality in MODALITIES:
        widths = internal[modality].shape[1], external[modality].shape[1]
        if widths[0] != widths[1]:
            raise ValueError(
                f"external {modality} embeddings must have dimension {widths[0]} as the internal "
                f"ones have; got {widths[1]}"
            )
    evidence: dict[str, Any] = {"warnings": []}
    provisional: Alignments | None = None
    if filter_settings.provisional_alignment:
        provisional = align(internal, external, alignment_settings, random_state, device)
        evidence["provisional_alignment"] = describe(provisional)
    cluster_filter = ClusterFilter(filter_settings, random_state, device)
    own = len(internal["image"])
    rows = sample_rows(own, filter_settings.sample, random_state)
    groups = np.arange(own) if groups is None else groups
    cluster_filter.fit(joint(*(take(internal[m], rows) for m in MODALITIES)), own, groups[rows])
    independent = len(np.unique(groups))
    automatic = "auto" in (filter_settings.tau_cent, filter_settings.tau_inst)
    if automatic and independent < FEWEST_TO_MEASURE:
        sharing = "" if independent == own else " that share no picture or text"
        evidence["warnings"].append(
            f"{independent} complete pairs{sharing} are too few to measure which external pairs "
            f"belong to them (it takes {FEWEST_TO_MEASURE}): thresholds that are auto drop none"
        )
    count = len(external["image"])
    size = filter_settings.points_per_centroid * external_clusters(count)
    cluster_filter.fit_external(_joint_sample(external, size, provisional, random_state), count)
    judging = Purification(cluster_filter, provisional, None)
    verdicts = judging.judge(external)
    dropped = cluster_filter.centroid_similarity_ < cluster_filter.tau_cent_
    evidence["filter"] = {
        "tau_cent": cluster_filter.tau_cent_,
        "tau_inst": cluster_filter.tau_inst_,
        "evidence": cluster_filter.evidence_,
        "internal_clusters": len(cluster_filter.centroids_),
        "external_clusters": len(cluster_filter.external_centroids_),
        "clusters_dropped": int(dropped.sum()),
        "rows_in": count,
        "verdicts": verdicts.counts(),
    }
    kept = np.flatnonzero(verdicts.kept)
    if len(kept) == 0:
        return Purified(verdicts, judging, evidence)
    alignments = align(
        internal,
        {modality: Subset(external[modality], kept) for modality in MODALITIES},
        alignment_settings,
        random_state,
        device,
        start=provisional,
    )
    evidence["alignment"] = describe(alignments)
    return Purified(verdicts, replace(judging, alignments=alignments), evidence)


def describe(alignments: Alignments) -> dict[str, Any]:
    """Gamma, gains per gamma and history per modality, for the manifest."""
    return {
        modality: {
            "gamma": alignment.gamma_,
            "identity": alignment.gamma_ is None,
            "gains": alignment.gains_,
            "history": alignment.history_,
        }
        for modality, alignment in alignments.items()
    }
