"""The score that chooses one candidate among a row's n.

Captions: s = λ₁ (c − h r) + λ₂ BLEU(x̃, examples) + a g. Pictures: s = λ₁ c′ − λ₂ q′, with the cosine
and the NIQE each standardised on the real halves of the dataset's own pairs, so that a NIQE of 3 to
20 does not drown a cosine. c is the cosine of the candidate to the row's pseudo-embedding. Faulty
candidates (:mod:`selection.validity`) are left out first.

r is the mean cosine of a caption to the pseudo-embeddings that it is nearest to: a caption that suits
any picture says little of this one. With h = 1/2 the bracket is half of CSLS (Conneau et al. 2018,
equation 3) less what does not depend on the caption. g is the mean cosine of a caption to the row's
other captions, repeated ones included: of draws from one distribution, the most central has the least
expected loss (minimum Bayes risk; Kumar and Byrne 2004).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from selection.bleu import sentence_bleu
from selection.judgement import DUPLICATE, Judged, choose
from selection.niqe import NiqeModel, niqe
from selection.scales import Standards, fit_standards
from selection.settings import Scoring, ScoringSettings
from selection.validity import caption_fault, duplicates, image_fault

# Pseudo-embeddings that a caption's hubness is the mean cosine to.
HUB_NEIGHBOURS = 5


class Selector:
    """Judges the candidates of a row and chooses one.

    Parameters
    ----------
    settings : ScoringSettings
    standards : Standards, optional
        From :meth:`fit_standards`; needed for pictures when they are to be standardised.
    niqe_model : NiqeModel, optional
        Needed with ``niqe: fitted``; "published" brings its own.
    pseudo_texts : ndarray of shape [m, d], optional
        Unit pseudo-embeddings of real pictures, by which the hubness of captions is measured; left
        out without any.
    """

    def __init__(
        self,
        settings: ScoringSettings | None = None,
        standards: Standards | None = None,
        niqe_model: NiqeModel | None = None,
        pseudo_texts: np.ndarray | None = None,
    ) -> None:
        self.settings = (settings or ScoringSettings()).fixed()
        self.standards = standards or Standards()
        self.pseudo_texts = pseudo_texts
        if self.settings.image.niqe == "fitted" and niqe_model is None:
            raise ValueError("image.niqe is fitted, but no fitted NIQE model was given")
        self.niqe_model = niqe_model

    def weighing(self, half: str, scoring: Scoring) -> Selector:
        """The same, but that captions (`half` "text") or pictures are scored otherwise."""
        changed = {"caption" if half == "text" else "image": scoring}
        settings = self.settings.model_copy(update=changed)
        return Selector(settings, self.standards, self.niqe_model, self.pseudo_texts)

    @staticmethod
    def fit_standards(
        settings: ScoringSettings,
        embeddings: np.ndarray,
        targets: np.ndarray | None,
        images: Iterable[Any],
        niqe_model: NiqeModel | None = None,
    ) -> Standards:
        """The standards that the settings need, by :func:`selection.scales.fit_standards`."""
        needed = settings.image.uses_niqe
        return fit_standards(embeddings, targets, images if needed else None, niqe_model)

    def judge_captions(
        self,
        texts: Sequence[str],
        embeddings: np.ndarray | None,
        target: np.ndarray | None,
        references: Sequence[str] = (),
        prompts: Sequence[str] = (),
        known_faults: Mapping[int, str] | None = None,
    ) -> Judged:
        """Judge a row's captions.

        Parameters
        ----------
        texts : sequence of n str
        embeddings : ndarray of shape [n, d] or None
            Unit text embeddings of the captions; None leaves the cosine out.
        target : ndarray of shape [d] or None
            The row's unit pseudo-text; None where the mapping says nothing.
        references : sequence of str
            Captions of the retrieved examples; without any, BLEU is left out.
        prompts : sequence of n str
            The prompt that each caption answers, or none.
        known_faults : mapping
            By number of the candidate, faults that the caller knows of.
        """
        settings = self.settings.caption
        if prompts and len(prompts) != len(texts):
            raise ValueError(f"prompts must be {len(texts)}, one per caption; got {len(prompts)}")
        faults = _with_duplicates(
            texts,
            [
                caption_fault(text, prompts[number] if prompts else "", references)
                for number, text in enumerate(texts)
            ],
        )
        faults = _with_known(faults, known_faults)
        valid = np.array([fault is None for fault in faults], dtype=bool)
        cosines = _cosines(embeddings, target, len(texts))
        score = np.zeros(len(texts))
        notes = []
        hubness = self._hubness(embeddings)
        agreements = _agreement(embeddings, faults)
        if cosines is not None:
            common = 0.0 if hubness is None else hubness
            score += settings.lambda1 * (cosines - settings.weight("hubness") * common)
        elif settings.lambda1 > 0:
            notes.append("cosine left out: no pseudo-embedding")
        if agreements is not None:
            score += settings.weight("agreement") * agreements
        # Whatever its weight, BLEU decides alone where the cosine, which should, can't be had.
        weight = settings.weight("lambda2") or float(cosines is None and settings.lambda1 > 0)
        bleus: list[float | None] = [None] * len(texts)
        if references:
            for number in np.flatnonzero(valid).tolist():
                bleus[number] = value = sentence_bleu(
                    texts[number],
                    references,
                    tokenizer=settings.tokenizer,
                    lowercase=settings.lowercase,
                )
                score[number] += weight * value
        return choose(
            settings,
            faults,
            cosines,
            score,
            notes,
            bleus=bleus,
            agreements=agreements,
            hubness=hubness,
        )

    def _hubness(self, embeddings: np.ndarray | None) -> np.ndarray | None:
        """Mean cosine of each row [n, d] to its nearest pseudo-texts, [n]; None without any."""
        if embeddings is None or self.pseudo_texts is None or not len(self.pseudo_texts):
            return None
        cosines = embeddings.astype(np.float64) @ self.pseudo_texts.T.astype(np.float64)
        k = min(HUB_NEIGHBOURS, cosines.shape[1])
        return np.partition(cosines, -k, axis=1)[:, -k:].mean(axis=1)

    def judge_images(
        self,
        images: Sequence[Any],
        embeddings: np.ndarray | None,
        target: np.ndarray | None,
        known_faults: Mapping[int, str] | None = None,
        known_niqe: Mapping[int, float | None] | None = None,
    ) -> Judged:
        """Judge a row's pictures.

        Parameters
        ----------
        images : sequence of n PIL.Image.Image or ndarray
        embeddings : ndarray of shape [n, d] or None
            Unit image embeddings of the candidates; None leaves the cosine out.
        target : ndarray of shape [d] or None
            The row's unit pseudo-image; None where the mapping says nothing.
        known_faults : mapping
            By number of the candidate, faults that the caller knows of.
        known_niqe : mapping
            By number of the candidate, its NIQE where that was measured before.
        """
        settings = self.settings.image
        faults = _with_duplicates(images, [image_fault(image) for image in images])
        faults = _with_known(faults, known_faults)
        valid = np.array([fault is None for fault in faults], dtype=bool)
        cosines = _cosines(embeddings, target, len(images))
        score = np.zeros(len(images))
        notes = []
        if cosines is not None:
            standard = self.standards.cosine if settings.standardise else None
            score += settings.lambda1 * (cosines if standard is None else standard(cosines))
        elif settings.lambda1 > 0:
            notes.append("cosine left out: no pseudo-embedding")
        qualities: list[float | None] = [None] * len(images)
        if settings.uses_niqe and valid.any():
            measured = np.full(len(images), np.nan)
            numbers = np.flatnonzero(valid).tolist()
            held = {
                number: value for number, value in (known_niqe or {}).items() if value is not None
            }
            new = [number for number in numbers if number not in held]
            measured[list(held)] = list(held.values())
            measured[new] = niqe([images[number] for number in new], self.niqe_model)
            for number in numbers:
                value = float(measured[number])
                qualities[number] = value if np.isfinite(value) else None
            standard = self.standards.niqe
            # Scores must compare: one term is either in all of a row's scores or in none.
            if not np.isfinite(measured[numbers]).all():
                notes.append("NIQE left out: a picture is too small or too flat")
            elif settings.standardise and standard is None:
                notes.append("NIQE left out: the dataset's pictures give no standard")
            else:
                scaled = standard(measured) if settings.standardise and standard else measured
                score -= settings.weight("lambda2") * np.nan_to_num(scaled)
        agreements = _agreement(embeddings, faults)
        return choose(
            settings, faults, cosines, score, notes, qualities=qualities, agreements=agreements
        )


def _with_duplicates(items: Sequence[Any], faults: list[str | None]) -> list[str | None]:
    return [
        fault or (None if first is None else DUPLICATE)
        for fault, first in zip(faults, duplicates(items), strict=True)
    ]


def _cosines(
    embeddings: np.ndarray | None, target: np.ndarray | None, count: int
) -> np.ndarray | None:
    if embeddings is None or target is None:
        return None
    if embeddings.ndim != 2 or len(embeddings) != count or embeddings.shape[1:] != target.shape:
        raise ValueError(
            f"embeddings must be [{count}, {target.shape[-1]}], one unit row per candidate; "
            f"got {embeddings.shape}"
        )
    return embeddings.astype(np.float64) @ target.astype(np.float64)


def _agreement(embeddings: np.ndarray | None, faults: Sequence[str | None]) -> np.ndarray | None:
    """Mean cosine of each row [n, d] to the other sound rows, repeated ones too, [n]; 0 without any.

    None without embeddings.
    """
    if embeddings is None:
        return None
    voters = np.array([fault in (None, DUPLICATE) for fault in faults], dtype=bool)
    rows = embeddings.astype(np.float64)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 0.0)
    others = voters.sum() - voters
    return np.divide(cosines @ voters, others, out=np.zeros(len(rows)), where=others > 0)


def _with_known(faults: Sequence[str | None], known: Mapping[int, str] | None) -> list[str | None]:
    return [(known or {}).get(number, fault) for number, fault in enumerate(faults)]
