import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.displacement import displaced


def test_the_displacement_is_a_gaussian_in_millimetres_along_each_axis():
    generator = np.random.default_rng(0)
    meant = Click((200, 200, 200), is_positive=False)
    spacing_mm = (0.5, 1.0, 2.0)
    moved = [displaced(meant, 4.0, (400, 400, 400), spacing_mm, (), generator) for _ in range(4000)]
    offsets_mm = (np.array([click.index for click in moved]) - 200) * spacing_mm
    assert np.allclose(offsets_mm.mean(axis=0), 0, atol=0.3)
    assert np.allclose(offsets_mm.std(axis=0), 4.0, rtol=0.05)
    assert not any(click.is_positive for click in moved)


@given(st.tuples(*(st.integers(0, 3),) * 3), st.sets(st.tuples(*(st.integers(0, 3),) * 3), max_size=63), st.integers())
def test_it_stays_in_the_volume_and_off_the_voxels_that_are_taken(meant, taken, seed):
    taken -= {meant}
    generator = np.random.default_rng(abs(seed))
    click = displaced(Click(meant), 5.0, (4, 4, 4), (1.0, 1.0, 1.0), taken, generator)
    assert click.index not in taken
    assert all(0 <= position < 4 for position in click.index)


def test_without_noise_the_click_is_what_was_meant():
    click = Click((1, 2, 3))
    assert displaced(click, 0.0, (4, 4, 4), (1.0, 1.0, 1.0), (), np.random.default_rng(0)) == click
