from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_sample_images


@pytest.fixture(scope="session")
def photographs() -> list[np.ndarray]:
    """scikit-learn's china.jpg and flower.jpg, [427, 640, 3] RGB."""
    return load_sample_images().images
