from collections.abc import Callable

import numpy as np
import pytest

from deepgrow3d_app.volume.volume import Volume

Scene = Callable[[np.ndarray], Volume]


@pytest.fixture
def mirrored() -> Scene:
    """A CT in LPS order with slices of 4 mm: 150 HU where ``inside`` is true, 0 HU elsewhere, and noise of 10 HU."""

    def make(inside: np.ndarray) -> Volume:
        noise = np.random.default_rng(0).normal(0, 10, inside.shape)
        array = (np.where(inside, 150, 0) + noise).astype(np.int16)
        return Volume(array, np.diag([-2.0, -2.0, 4.0, 1.0]), modality="CT")

    return make
