import numpy as np
import pytest

from deepgrow3d_app.evaluation.baselines.graph_cut import (
    HISTOGRAM_BINS,
    STEP_LENGTH,
    geodesic_preference,
    intensity_preference,
    parzen_density,
)
from deepgrow3d_app.evaluation.baselines.neighbours import neighbour_pairs
from deepgrow3d_app.evaluation.baselines.region import BACKGROUND, FOREGROUND, UNKNOWN


def test_geodesic_preference_of_a_row_by_hand():
    """Foreground, two unknown voxels, background; the edge of height 1 lies between the unknown ones."""
    image = np.array([0.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)
    seeds = np.array([FOREGROUND, UNKNOWN, UNKNOWN, BACKGROUND], dtype=np.int8).reshape(4, 1, 1)
    near, far = STEP_LENGTH, 2 * STEP_LENGTH + 1
    expected = [1, (far - near) / (far + near), (near - far) / (far + near), -1]
    preference = geodesic_preference(*neighbour_pairs(image), seeds)
    assert preference.ravel().tolist() == pytest.approx(expected)


def test_an_intensity_like_that_of_the_clicks_is_preferred_until_a_background_click_has_it_too():
    image = np.full((9, 9, 9), -0.5, dtype=np.float32)
    image[2:7, 2:7, 2:7] = 0.5
    seeds = np.zeros(image.shape, dtype=np.int8)
    seeds[3, 3, 3] = FOREGROUND
    alone = intensity_preference(image, seeds)
    assert alone[5, 5, 5] > 0.3
    assert alone[1, 1, 1] < -0.3
    seeds[5, 5, 5] = BACKGROUND
    assert abs(intensity_preference(image, seeds)[4, 4, 4]) < alone[4, 4, 4] / 2


def test_a_density_integrates_to_one_and_is_widest_around_its_sample():
    density = parzen_density(np.array([0.0, 0.0, 0.9]))
    assert density.sum() * 2 / HISTOGRAM_BINS == pytest.approx(1)
    assert density.argmax() == HISTOGRAM_BINS // 2
