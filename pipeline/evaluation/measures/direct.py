"""Direct measures: generated halves beside the hidden ones, row by row and as whole sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kb.embeddings import MODALITIES, Modality
from pipeline.check.captions import bleu_and_chrf, cider_d
from pipeline.check.intervals import interval
from pipeline.dataset.catalog import encoded_images
from pipeline.dataset.images import decode
from pipeline.evaluation.protocol.world import World
from pipeline.job import Job
from pipeline.storage.digests import digest
from pipeline.storage.files import read_json, write_whole
from selection.niqe import NiqeModel, niqe

VERSION = 4


class Direct:
    """Compares what was generated with what had been hidden; kept by content in `folder`."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder

    def measure(
        self, job: Job, table: pa.Table, hidden: Mapping[str, Modality]
    ) -> list[dict[str, Any]]:
        """Figures of a completed dataset.

        Parameters
        ----------
        job : Job
            Whose NIQE model is used.
        table : completed rows
        hidden : id to hidden half

        Returns
        -------
        list of dict
            `group` "direct", `missing`, `measure`, `value`; where the measure is a mean over rows
            also `half` (of its 95 % interval) and `rows`, the value of each by id. Rows without a
            generated half don't count; of those whose half can't be decoded, or not be embedded by
            the judge, `group` "rows" and `measure` "not measured" tell how many.
        """
        ids = table["id"].to_pylist()
        made: dict[Modality, list[tuple[str, Any]]] = {half: [] for half in MODALITIES}
        images = encoded_images(table).to_pylist()
        for row_id, image, text, status in zip(
            ids, images, table["text"].to_pylist(), table["status"].to_pylist(), strict=True
        ):
            if status == "completed":
                half = hidden[row_id]
                text = text[0] if isinstance(text, list) and text else text
                made[half].append((row_id, text if half == "text" else image))
        path = self.folder / f"{self._key(job, made)}.json"
        if (held := read_json(path)) is not None:
            return list(held["figures"])
        figures = self._texts(made["text"]) + self._images(made["image"], job)
        write_whole(path, json.dumps({"figures": figures}))
        return figures

    def _key(self, job: Job, made: Mapping[Modality, list[tuple[str, Any]]]) -> str:
        """What the figures depend on: judge, NIQE model, and each row's made half and true one."""
        judge = self.world.views.judge.models
        niqe_model = job.knowledge.selector.niqe_model
        rows, groups = self.world.rows, self.world.views.groups
        return digest(
            str(VERSION),
            json.dumps(judge.identity(judge.encoder_component), sort_keys=True),
            json.dumps(None if niqe_model is None else niqe_model.to_dict()),
            *(
                digest(row_id, groups[row_id], half, content, *rows[row_id].half(half))
                for half in MODALITIES
                for row_id, content in sorted(made[half])
            ),
        )

    def _texts(self, made: list[tuple[str, str]]) -> list[dict[str, Any]]:
        if not self._enough(made):
            return []
        ids = [row_id for row_id, _ in made]
        texts = [text for _, text in made]
        references = [self.world.rows[row_id].texts for row_id in ids]
        bleu, chrf = bleu_and_chrf(texts, references)
        own, held = self.world.views.judged_halves("text", [[text] for text in texts])
        return [
            self._mean("text", "CIDEr", ids, cider_d(texts, references)),
            _figure("text", "BLEU-4", bleu),
            _figure("text", "chrF", chrf),
            *self._cosines("text", ids, own, held),
        ]

    def _images(self, made: list[tuple[str, bytes]], job: Job) -> list[dict[str, Any]]:
        if not self._enough(made):
            return []
        ids = [row_id for row_id, _ in made]
        own, held = self.world.views.judged_halves("image", [data for _, data in made])
        figures = self._cosines("image", ids, own, held)
        limit = self.world.views.most_pixels
        pictures = [
            decode(data, limit) for (_, data), sound in zip(made, held, strict=True) if sound
        ]
        truth = self.world.views.embeddings_of(ids, "image", judge=True)
        for measure, value in (
            ("NIQE", mean_niqe(pictures, job.knowledge.selector.niqe_model)),
            ("Fréchet", frechet_distance(own[held], truth[held])),
        ):
            if value is not None:
                figures.append(_figure("image", measure, value))
        return figures

    def _cosines(
        self, half: Modality, ids: Sequence[str], own: np.ndarray, held: np.ndarray
    ) -> list[dict[str, Any]]:
        """The mean cosine of generated halves to the hidden ones, and how many have none."""
        figures = []
        sound = [row_id for row_id, one in zip(ids, held, strict=True) if one]
        if len({self.world.views.groups[row_id] for row_id in sound}) > 1:
            truth = self.world.views.embeddings_of(sound, half, judge=True)
            cosines = np.einsum("nd,nd->n", own[held], truth)
            figures.append(self._mean(half, "cosine", sound, cosines))
        if len(sound) < len(ids):
            lost = _figure(half, "not measured", len(ids) - len(sound))
            figures.append(lost | {"group": "rows"})
        return figures

    def _enough(self, made: list[tuple[str, Any]]) -> bool:
        """Whether there are two rows that share no picture or text."""
        return len({self.world.views.groups[row_id] for row_id, _ in made}) > 1

    def _mean(
        self, missing: str, measure: str, ids: list[str], values: np.ndarray
    ) -> dict[str, Any]:
        found = interval(values, [self.world.views.groups[row_id] for row_id in ids])
        rows = dict(zip(ids, values.tolist(), strict=True))
        return _figure(missing, measure, found.mean) | {"half": found.half, "rows": rows}


def _figure(missing: str, measure: str, value: float) -> dict[str, Any]:
    return {"group": "direct", "missing": missing, "measure": measure, "value": value}


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Fréchet distance of two sets of features, seen as Gaussians (Heusel et al. 2017).

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), on the features of whichever encoder is handed
    in: values of different encoders do not compare, nor do those of sets of different sizes.

    Parameters
    ----------
    a, b : features [n, d] and [m, d]

    Returns
    -------
    float or None
        None with fewer than 2 d rows on a side: covariances would say little.
    """
    if min(len(a), len(b)) < 2 * a.shape[1]:
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = [np.cov(side, rowvar=False) for side in (a, b)]
    # The eigenvalues of Σ_a Σ_b are real and not negative, and the trace of a root is their sum.
    values = np.linalg.eigvals(covariances[0] @ covariances[1])
    root = np.sqrt(np.clip(values.real, 0, None)).sum()
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def mean_niqe(images: Sequence[Any], model: NiqeModel | None) -> float | None:
    """Mean NIQE of the images that are large and structured enough for it; None without any."""
    values = niqe(images, model) if len(images) else np.zeros(0)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
