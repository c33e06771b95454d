"""By what picture scores are standardised: by what mappings predict of pairs they did not see."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kb.embeddings import normalise
from pipeline.job import Job
from tests import quick_worlds
from tests.quick_parts import QuickEncoder


class NoisyEncoder(QuickEncoder):
    """Pictures tell their colour, and as much that is theirs alone."""

    def _image(self, image: Image.Image) -> np.ndarray:
        own = np.random.default_rng(zlib.crc32(image.tobytes())).normal(size=12)
        return super()._image(image) + 0.3 * own


def cosine_standard(job: Job) -> dict[str, float]:
    return json.loads((job.config.folder / "standards.json").read_text())["standards"]["cosine"]


def job_of(folder: Path, method: str) -> Job:
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(60, 2, 2))
    knowledge = {"mapping": {"method": method}, "device": "cpu"}
    encoder = {"kind": "tests.pipeline.knowledge.test_standards:NoisyEncoder"}
    config = quick_worlds.config(folder, encoder=encoder, knowledge_base=knowledge)
    return quick_worlds.run(config)[0]


def test_pairs_are_judged_by_what_is_predicted_of_them_unseen(tmp_path: Path) -> None:
    job = job_of(tmp_path, "ridge")
    kb = job.knowledge.base
    held_out = kb.held_out()
    assert held_out is not None and list(held_out.ids) == kb.pairs["id"].to_pylist()
    pictures = normalise(kb.embeddings["image"])
    unseen = normalise(held_out.predictions["text"])
    expected = np.einsum("nd,nd->n", unseen, pictures)
    # What the mapping says of pairs that it was fitted on is nearer to them.
    fitted = np.einsum("nd,nd->n", kb.pseudo(normalise(kb.embeddings["text"]), "text"), pictures)
    assert fitted.mean() > expected.mean()
    found = cosine_standard(job)
    for name, of in (("mean", np.mean), ("deviation", lambda values: np.std(values, ddof=1))):
        gap = abs(of(fitted) - of(expected))
        assert found[name] == pytest.approx(float(of(expected)), abs=float(gap) / 3)


def test_hubness_is_measured_by_predictions_of_pictures_that_were_not_seen(
    tmp_path: Path,
) -> None:
    job = job_of(tmp_path, "ridge")
    kb = job.knowledge.base
    held_out = kb.held_out()
    assert held_out is not None and not kb.mapping.constant_["image"]
    unseen = normalise(held_out.predictions["image"])
    found = job.knowledge.selector.pseudo_texts
    np.testing.assert_allclose(found, unseen, atol=1e-6)
    assert not np.allclose(found, kb.pseudo(normalise(kb.embeddings["image"]), "image"), atol=0.01)


def test_a_mapping_without_a_contest_is_judged_by_itself(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(20, 2, 2))
    job = quick_worlds.run(quick_worlds.config(tmp_path))[0]
    kb = job.knowledge.base
    assert kb.held_out() is None
    pictures = normalise(kb.embeddings["image"])
    fitted = np.einsum("nd,nd->n", kb.pseudo(normalise(kb.embeddings["text"]), "text"), pictures)
    assert cosine_standard(job)["mean"] == pytest.approx(fitted.mean(), abs=1e-3)
