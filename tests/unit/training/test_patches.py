import numpy as np
import torch

from deepgrow3d_app.training.augment import change_appearance, turn
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.patches import MIN_TARGET_VOXELS, PatchSource
from deepgrow3d_app.training.phantom import paste_structure, random_scene, random_shape


def test_image_and_truth_of_a_real_patch_stay_together(case_folder, tiny_spec):
    """The structure is the only bright thing: wherever it is cut out and turned, the truth lies on it."""
    pool = CasePool([load_group(case_folder, tiny_spec, held_out=0)])
    source = PatchSource(pool, tiny_spec, synthetic_share=0.0, generator=np.random.default_rng(0))
    for _ in range(20):
        patch = source.draw()
        inside, outside = patch.image[patch.truth], patch.image[~patch.truth]
        assert patch.truth.sum() >= MIN_TARGET_VOXELS
        assert abs(float(inside.median() - outside.median())) > 0.2


def test_patches_are_finite_never_empty_and_repeatable(case_folder, tiny_spec):
    pool = CasePool([load_group(case_folder, tiny_spec, held_out=0)])
    sources = [PatchSource(pool, tiny_spec, 0.5, np.random.default_rng(7)) for _ in range(2)]
    for _ in range(10):
        first, second = (source.draw() for source in sources)
        assert torch.isfinite(first.image).all()
        assert first.truth.any()
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.truth, second.truth)


def test_turning_moves_image_and_truth_alike():
    image = torch.arange(6.0**3).reshape(6, 6, 6)
    truth = image % 7 == 0
    generator = np.random.default_rng(1)
    for _ in range(20):
        turned, turned_truth = turn(image, truth, generator)
        assert torch.equal(turned % 7 == 0, turned_truth)


def test_appearance_changes_keep_the_grid():
    generator = np.random.default_rng(2)
    image = torch.rand(8, 10, 12)
    changed = [change_appearance(image, generator) for _ in range(20)]
    assert all(other.shape == image.shape for other in changed)
    assert any(not torch.equal(other, image) for other in changed)


def test_a_pasted_structure_can_be_seen():
    generator = np.random.default_rng(3)
    background = torch.zeros(24, 24, 24)
    seen = 0
    for _ in range(20):
        image, truth = paste_structure(background, generator)
        if truth.sum() > 200:
            seen += 1
            assert abs(float(image[truth].median())) > 0.08
    assert seen > 5


def test_scenes_have_a_target_of_the_patch_shape():
    generator = np.random.default_rng(4)
    image, truth = random_scene((16, 20, 24), generator)
    assert image.shape == truth.shape == (16, 20, 24)
    assert truth.dtype == torch.bool


def test_a_shape_has_about_the_size_that_was_asked_for():
    generator = np.random.default_rng(5)
    volumes = [float((random_shape((40, 40, 40), 0.15, generator) > 0).sum()) for _ in range(20)]
    ball = 4 / 3 * np.pi * (0.15 * 40) ** 3
    assert 0.5 * ball < np.median(volumes) < 2 * ball
