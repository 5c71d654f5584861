import numpy as np
import pytest

from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.seeds import seeds_of, structure_seeds
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.files import write_mask
from tests.unit.serving.conftest import SHAPE


@pytest.fixture
def datastore(studies):
    return StudiesDatastore(studies, VolumeCache(1 << 20), ClickLog(None), auto_reload=False)


def test_a_segmentation_of_a_part_of_the_image_has_its_seeds_in_the_image(datastore, studies):
    """3D Slicer writes what it has of a segmentation and not the whole grid."""
    part = np.zeros((3, 3, 3), np.uint8)
    part[1, 1, 1] = 1
    affine = np.eye(4)
    affine[:3, 3] = (2, 3, 4)
    write_mask(part, affine, studies / "labels" / "original" / "ct.seg.nrrd")
    datastore.refresh()
    assert [(name, clicks[0].index) for name, clicks in structure_seeds(datastore, "ct", "original").items()] == [
        ("label 1", (3, 4, 5))
    ]


def test_each_value_has_a_seed_also_where_two_have_one_name(datastore, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 1, 1], mask[4, 4, 4], mask[2, 5, 6] = 1, 2, 3
    write_mask(mask, np.eye(4), tmp_path / "label.nii.gz")
    names = [{"name": "cyst", "idx": 1}, {"name": "cyst", "idx": 2}, {"name": "liver", "idx": 3}]
    datastore.save_label("ct", str(tmp_path / "label.nii.gz"), "final", {"label_info": names})
    seeds = structure_seeds(datastore, "ct", "final")
    assert {name: [click.index for click in clicks] for name, clicks in seeds.items()} == {
        "cyst": [(1, 1, 1), (4, 4, 4)],
        "liver": [(2, 5, 6)],
    }
    assert seeds_of(datastore, "ct") == [(1, 1, 1), (4, 4, 4), (2, 5, 6)]


def test_an_image_without_a_label_that_fits_has_no_seeds(datastore, studies):
    write_mask(np.ones((3, 3, 3), np.uint8), np.eye(4), studies / "labels" / "original" / "ct.nii.gz")
    datastore.refresh()
    assert seeds_of(datastore, "ct") == []
