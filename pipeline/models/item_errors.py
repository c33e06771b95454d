"""Errors of the encoder that come of one picture or text: they fail that one, and no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from generators.device import is_lost
from kb.embeddings import Modality
from pipeline.models.loaded import LoadedModels
from pipeline.models.sound import named
from pipeline.storage.passing import comes_of_a_picture

logger = logging.getLogger(__name__)


def comes_of_an_item(models: LoadedModels, modality: Modality, error: Exception) -> bool:
    """Whether the encoder's error comes of what it was given.

    Not of the machine or the network, and not where the plainest picture or text is too much for it.
    """
    of_machine = isinstance(error, OSError) and not comes_of_a_picture(error)
    if of_machine or is_lost(error):
        return False
    plain: Any = Image.new("RGB", (64, 64), "grey") if modality == "image" else ["a picture"]
    try:
        models.embed([plain], modality)
    except Exception:  # noqa: BLE001  the first error is told
        return False
    return True


def embed_each(
    models: LoadedModels, items: Sequence[Any], modality: Modality
) -> tuple[np.ndarray, dict[int, str]]:
    """The embeddings of items, and by number why one has none.

    After an error the items are encoded one by one.

    Parameters
    ----------
    models : LoadedModels
    items : sequence of n pictures, or of n rows of captions
    modality : Modality

    Returns
    -------
    float32 [n, d], unit rows; zeros where there is none, and the reasons

    Raises
    ------
    Exception
        The error, where it doesn't come of an item (`comes_of_an_item`).
    """
    embeddings = np.zeros((len(items), models.encoder.dimension(modality)), np.float32)
    if not items:
        return embeddings, {}
    try:
        embeddings[:] = models.embed(items, modality)
        return embeddings, {}
    except Exception as error:
        if not comes_of_an_item(models, modality, error):
            raise
        logger.warning("an error with %d items in a batch; they go one by one", len(items))
    faults: dict[int, str] = {}
    for number, item in enumerate(items):
        try:
            embeddings[number] = models.embed([item], modality)[0]
        except Exception as error:
            if not comes_of_an_item(models, modality, error):
                raise
            faults[number] = f"the encoder can't take it: {named(error)}"
    return embeddings, faults
