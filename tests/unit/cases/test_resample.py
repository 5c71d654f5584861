import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.cases.labelled_case import LabelledCase, structures_in
from deepgrow3d_app.cases.resample import in_ras_order, resample
from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume.volume import Volume


def _case(labels, affine, array=None):
    array = labels.astype(np.int16) if array is None else array
    return LabelledCase("case", Volume(array, affine), labels, structures_in(labels, {}))


def _places_mm(case):
    """World coordinates of all voxel centres: (3, i, j, k)."""
    affine = case.volume.affine
    return np.tensordot(affine[:3, :3], np.indices(case.labels.shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)


@st.composite
def _affines(draw):
    """Any rotation (flips and permutations among them: of 90 and 180 degrees), mirrored or not, anisotropic."""
    quaternion = np.array(draw(st.tuples(*[st.integers(-3, 3)] * 4).filter(any)), float)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(draw(st.tuples(*[st.sampled_from((0.7, 1.0, 2.5))] * 3)))
    if draw(st.booleans()):
        affine[:3, 0] *= -1
    affine[:3, 3] = draw(st.tuples(*[st.integers(-100, 100)] * 3))
    return affine


spacings = st.tuples(*[st.sampled_from((0.5, 1.0, 1.7, 3.0))] * 3)


@given(_affines(), spacings, st.integers(0, 99))
def test_a_place_keeps_its_structure(affine, spacing_mm, seed):
    labels = np.random.default_rng(seed).integers(0, 4, (7, 5, 6)).astype(np.uint8)
    new = resample(in_ras_order(_case(labels, affine)), spacing_mm)
    assert new.volume.spacing_mm == pytest.approx(spacing_mm)
    places = np.linalg.inv(affine) @ np.concatenate([_places_mm(new).reshape(3, -1), np.ones((1, new.labels.size))])
    stored = np.clip(places[:3], 0, np.array(labels.shape)[:, None] - 1)
    is_clear = (np.abs(stored - np.floor(stored) - 0.5) > 1e-4).all(axis=0)  # not halfway between two voxels
    i, j, k = np.rint(stored[:, is_clear]).astype(int)
    assert (new.labels.reshape(-1)[is_clear] == labels[i, j, k]).all()


@given(_affines(), spacings)
def test_a_ramp_in_the_world_stays_that_ramp(affine, spacing_mm):
    case = _case(np.ones((16, 15, 14), np.uint8), affine)
    ramp = 20 * np.tensordot((1.0, -2.0, 0.5), _places_mm(case), 1)
    case = in_ras_order(_case(case.labels, affine, np.rint(ramp).astype(np.int16)))
    new = resample(case, spacing_mm)
    expected = 20 * np.tensordot((1.0, -2.0, 0.5), _places_mm(new), 1)
    # Away from the border, where nothing lies beyond that the smoothing could have used.
    margins_mm = [edge + 2 * step for edge, step in zip(case.volume.spacing_mm, spacing_mm, strict=True)]
    inner = tuple(
        slice(cut, extent - cut)
        for cut, extent in zip(
            (int(np.ceil(margin / step)) for margin, step in zip(margins_mm, spacing_mm, strict=True)),
            new.labels.shape,
            strict=True,
        )
    )
    assert np.abs(new.volume.array - expected)[inner].max(initial=0) <= 1.5


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1.0, -1.0), repeat=3)))
def test_axes_come_into_ras_order_with_their_spacings(axes, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[list(axes)] * (1.0, 2.0, 3.0)
    turned = in_ras_order(_case(np.ones((4, 5, 6), np.uint8), affine))
    spacings_mm = [(1.0, 2.0, 3.0)[axis] for axis in axes]
    assert np.array_equal(turned.volume.affine[:3, :3], np.diag(spacings_mm))
    assert turned.labels.shape == tuple((4, 5, 6)[axis] for axis in axes)


def test_the_grid_keeps_its_middle():
    case = _case(np.ones((10, 11, 12), np.uint8), np.diag((1.0, 1.0, 2.5, 1.0)))
    new = resample(case, (2.0, 3.0, 1.0))
    assert new.labels.shape == (5, 4, 30)
    assert _places_mm(new).mean(axis=(1, 2, 3)) == pytest.approx(_places_mm(case).mean(axis=(1, 2, 3)))


def test_stripes_that_a_coarse_grid_cannot_hold_become_their_mean():
    stripes = np.zeros((64, 4, 4), np.int16)
    stripes[::2] = 1000
    case = _case(np.ones(stripes.shape, np.uint8), np.eye(4), stripes)
    assert np.abs(resample(case, (4.0, 1.0, 1.0)).volume.array[2:-2] - 500).max() < 20


def test_an_oblique_sheet_of_one_voxel_stays_whole_where_voxels_become_finer():
    labels = np.zeros((12, 12, 3), np.uint8)
    labels[np.arange(12), np.arange(12)] = 1
    new = resample(_case(labels, np.eye(4)), (0.5, 0.5, 1.0))
    assert new.labels.sum() == 4 * labels.sum()


def test_lost_structures_are_no_longer_listed():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:, :, 0] = 1
    labels[:, :, 4] = 2
    assert resample(_case(labels, np.eye(4)), (1.0, 1.0, 3.0)).structures == {"label 2": 2}


def test_the_same_spacing_changes_nothing():
    case = _case(np.ones((3, 3, 3), np.uint8), np.eye(4))
    assert resample(case, (1.0, 1.0, 1.0004)) is case


def test_a_grid_beyond_memory_is_refused():
    case = _case(np.ones((99, 99, 99), np.uint8), np.eye(4))
    with pytest.raises(UnsupportedVolume, match=r"would have 9.7e\+11 voxels, .* Choose a coarser spacing"):
        resample(case, (0.01, 0.01, 0.01))
