"""Exactness of the way from a file's voxels to int16 and to labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.errors import UnsupportedVolume
from deepgrow3d_app.volume import stored as stored_module
from deepgrow3d_app.volume.files import read_mask
from deepgrow3d_app.volume.stored import MAX_VOXELS, StoredVoxels, check_shape, to_mask, to_volume
from deepgrow3d_app.volume.volume import Volume


def stored(values, slope=1.0, intercept=0.0) -> StoredVoxels:
    values = np.asarray(values)
    return StoredVoxels(values, (values.size, 1, 1), np.eye(4), slope, intercept)


def physical(volume: Volume) -> np.ndarray:
    return volume.array.ravel(order="F").astype(np.float64) * volume.slope + volume.intercept


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "u2", ">u2", "i4", "u4", "i8", "u8", "f4", "f8", ">f4"])
def test_integers_within_int16_stay_as_they_are(dtype):
    values = np.array([0, 1, 100, 7], dtype)
    volume = to_volume(stored(values), "x")
    assert volume.array.dtype == np.int16
    assert (volume.slope, volume.intercept) == (1.0, 0.0)
    assert volume.array.ravel().tolist() == [0, 1, 100, 7]


def test_int16_keeps_the_scaling_of_the_file_and_is_not_copied():
    values = np.array([-32768, 32767], np.int16)
    volume = to_volume(stored(values, 0.25, -3.5), "x")
    assert (volume.slope, volume.intercept) == (0.25, -3.5)
    assert np.shares_memory(volume.array, values)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 65535, 1024], np.uint16),
        np.array([100_000, 130_000], np.int32),
        np.array([2**63, 2**63 + 65535, 2**63 + 5], np.uint64),
        np.array([40_000.0, 39_000.0, 50_000.0], np.float32),
    ],
)
def test_integers_that_span_16_bits_are_shifted_exactly(values):
    volume = to_volume(stored(values, 2.0, 10.0), "x")
    assert volume.slope == 2.0
    assert np.array_equal(np.diff(volume.array.ravel().astype(int)), np.diff(values.astype(object)).astype(int))
    np.testing.assert_allclose(physical(volume), values.astype(np.float64) * 2 + 10, rtol=1e-15)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.sampled_from(["f4", "f8"]))
def test_other_values_are_rounded_to_one_step_of_65535(values, dtype):
    array = np.array(values, dtype)
    span = float(array.max()) - float(array.min())
    volume = to_volume(stored(array), "x")
    assert np.abs(physical(volume) - array).max() <= 0.5001 * span / 65535 + 1e-9
    assert volume.slope > 0


@pytest.mark.parametrize("outlier", [1e7, -1e7, 3e38, -3e38])
@pytest.mark.parametrize("share", [0.00001, 0.0004])
def test_outliers_do_not_cost_the_other_voxels_their_values(outlier, share):
    values = np.random.default_rng(0).normal(40.0, 200.0, 200_000).astype(np.float32)
    n_outliers = int(share * values.size)
    values[:n_outliers] = outlier
    volume = to_volume(stored(values), "x")
    assert np.abs(physical(volume) - values)[n_outliers:].max() < 0.3
    assert (np.sign(physical(volume) - 40) == np.sign(values - 40))[:n_outliers].all()  # brightest, or darkest


def test_what_is_rare_is_looked_for_everywhere(monkeypatch):
    """With an even stride, all samples could be of the first column, which is air."""
    monkeypatch.setattr(stored_module, "SAMPLED_VOXELS", 1024)
    values = np.random.default_rng(0).normal(50.0, 400.0, (8, 32, 32)).astype(np.float32)
    values[0] = np.random.default_rng(1).normal(-1000.0, 1.0, (32, 32))
    volume = to_volume(stored(values.ravel(order="F")), "x")
    assert abs(physical(volume).max() - values.max()) < 0.1


def test_a_fill_value_may_fill_most_of_the_volume():
    values = np.random.default_rng(0).random(100_000).astype(np.float32)
    values[:60_000] = -np.finfo(np.float32).max
    volume = to_volume(stored(values), "x")
    assert np.abs(physical(volume) - values)[60_000:].max() < 1e-3


def test_whole_numbers_beside_an_outlier_stay_exact():
    values = np.arange(-1000, 1000).repeat(100).astype(np.int32)
    values[0] = 10**7
    volume = to_volume(stored(values), "x")
    assert volume.slope == 1.0
    assert (physical(volume) == values)[1:].all()


@pytest.mark.parametrize("rare", [60.0, 150.0])
def test_rare_values_that_leave_the_others_enough_steps_are_kept(rare):
    values = np.random.default_rng(0).random(100_000)
    values[0] = rare
    volume = to_volume(stored(values), "x")
    expected = rare if rare == 60 else 11  # ten times the bulk's range above it
    assert physical(volume)[0] == pytest.approx(expected, abs=0.1)


def test_a_few_voxels_that_differ_from_all_others_are_kept():
    values = np.zeros(100_000)
    values[:3] = (0.5, 1e3, 1e6)
    np.testing.assert_allclose(physical(to_volume(stored(values), "x"))[:4], (0.5, 1e3, 1e6, 0), atol=8)


def test_a_constant_fraction_survives():
    assert physical(to_volume(stored(np.full(3, 0.1)), "x")) == pytest.approx([0.1] * 3, abs=1e-9)


def test_nan_and_infinity_are_counted():
    values = np.array([0, np.nan, np.inf, -np.inf, 1], np.float32)
    with pytest.raises(UnsupportedVolume, match=r"'x.nii' cannot be used: 3 of its 5 voxels are NaN or infinite. Repl"):
        to_volume(stored(values), "x.nii")


def test_a_range_beyond_float64_is_refused():
    with pytest.raises(UnsupportedVolume, match="span"):
        to_volume(stored(np.array([-1.5e308, 1.5e308])), "x")


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_unusable_scaling_is_refused(slope):
    with pytest.raises(UnsupportedVolume, match="scaling is unusable"):
        to_volume(stored(np.array([1, 2], np.int16), slope), "x")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", ">f8"])
def test_labels_of_any_type(dtype):
    mask = to_mask(stored(np.array([0, 1, 5], dtype)), "x")
    assert mask.dtype == np.uint8
    assert mask.ravel().tolist() == [0, 1, 5]


def test_labels_are_scaled_before_they_are_judged():
    assert to_mask(stored(np.array([0, 2, 4], np.int16), 0.5, 1.0), "x").ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("greatest", [1, 3, 13, 117, 255])
def test_labels_that_nibabel_scaled(tmp_path, dtype, greatest):
    """Labels in floating point, saved with the header of an integer label map: stored as steps of greatest / 255."""
    labels = np.random.default_rng(0).integers(0, greatest + 1, (9, 8, 7)).astype(np.float32)
    labels[0, 0, 0] = greatest
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(labels, np.eye(4), header), tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "labels.nii.gz")[0], labels)


def test_a_map_of_probabilities_is_no_label():
    with pytest.raises(UnsupportedVolume, match="holds the value 0"):
        to_mask(stored(np.arange(256, dtype=np.uint8), 1 / 255), "x")


@pytest.mark.parametrize(("value", "told"), [(256, "256"), (-1, "-1"), (0.5, "0.5"), (np.nan, "nan")])
def test_values_that_are_no_label(value, told):
    with pytest.raises(UnsupportedVolume, match=f"holds the value {told}. A label map holds whole numbers from 0"):
        to_mask(stored(np.array([0, value])), "x")


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ((4, 5), "2 dimensions"),
        ((4, 5, 6, 2), "4 dimensions"),
        ((4, 0, 6), "no voxels"),
        ((4, -5, 6), "no voxels"),
        ((32768, 1, 1), "claims 32768"),
        ((2048, 2048, 2048), f"at most {MAX_VOXELS} voxels"),
    ],
)
def test_shapes_that_are_refused(sizes, fault):
    with pytest.raises(UnsupportedVolume, match=fault):
        check_shape(sizes, "x")


def test_further_axes_of_one_step_are_dropped():
    assert check_shape((4, 5, 6, 1, 1), "x") == (4, 5, 6)
