import pytest

from deepgrow3d_app.click.click import Click, checked_clicks
from deepgrow3d_app.errors import ClickOutsideVolume, ContradictoryClicks, NoForegroundClick

SHAPE = (8, 6, 4)


def test_valid_clicks_are_kept_in_order_and_once():
    inside, outside = Click((1, 2, 3)), Click((7, 5, 0), is_positive=False)
    assert checked_clicks([inside, outside, inside], SHAPE) == (inside, outside)


@pytest.mark.parametrize("index", [(-1, 0, 0), (8, 0, 0), (0, 6, 0), (0, 0, 4), (0, 0, -3)])
def test_a_click_beyond_the_volume_names_the_bound(index):
    with pytest.raises(ClickOutsideVolume, match=r"\(7, 5, 3\)") as caught:
        checked_clicks([Click((0, 0, 0)), Click(index)], SHAPE)
    assert str(index) in str(caught.value)


def test_background_clicks_alone_are_refused():
    with pytest.raises(NoForegroundClick):
        checked_clicks([Click((0, 0, 0), is_positive=False)], SHAPE)


def test_a_voxel_cannot_be_inside_and_outside():
    with pytest.raises(ContradictoryClicks, match="Remove one"):
        checked_clicks([Click((1, 1, 1)), Click((1, 1, 1), is_positive=False)], SHAPE)
