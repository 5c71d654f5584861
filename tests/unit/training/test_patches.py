import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.training.augment import REMAP_KNOTS, change_appearance, coarsen, enhancement, remapped, turn, warp
from deepgrow3d_app.training.patches import MIN_TARGET_VOXELS
from deepgrow3d_app.training.phantom import paste_structure, random_scene, random_shape, with_contents


def same(first, second):
    return (
        torch.equal(first.image, second.image)
        and torch.equal(first.truth, second.truth)
        and first.edge_mm == second.edge_mm
    )


def agreement(a, b):
    """Dice."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_image_and_truth_of_a_real_patch_stay_together(make_patches, monkeypatch):
    """The structure is the only bright thing: wherever it is cut out and turned, the truth lies on it."""
    monkeypatch.setattr("deepgrow3d_app.training.patches.FILL_PROBABILITY", 0.0)
    source = make_patches()
    for number in range(20):
        patch = source.draw(0, number)
        assert patch.truth.sum() >= MIN_TARGET_VOXELS
        about = functional.max_pool3d(patch.truth[None].float(), 7, 1, 3)[0] > 0
        inside, outside = patch.image[patch.truth].median(), patch.image[about & ~patch.truth].median()
        assert abs(float(inside - outside)) > 0.2
        looks_inside = (patch.image - inside).abs() < (patch.image - outside).abs()
        assert agreement(looks_inside & about, patch.truth) > 0.8


def test_without_augmentation_intensities_are_those_of_the_window(make_patches):
    """100 HU in a window from -160 to 240 HU is 0.3, -100 HU is -0.7."""
    source = make_patches(is_augmented=False)
    for number in range(5):
        patch = source.draw(0, number)
        assert float(patch.image[patch.truth].median()) == pytest.approx(0.3, abs=1e-4)
        assert float(patch.image[~patch.truth].median()) == pytest.approx(-0.7, abs=1e-4)


def test_without_augmentation_the_target_has_the_size_of_the_structure(make_patches):
    """The box is 16 x 20 x 12 mm large; of a region that cuts it off, only a part is seen."""
    source = make_patches(is_augmented=False)
    source.spec = dataclasses.replace(source.spec, stretch=1.0)
    volumes = volumes_mm3(source)
    assert np.median(volumes) == pytest.approx(16 * 20 * 12, rel=0.1)
    assert volumes.max() < 1.1 * 16 * 20 * 12


def test_a_stretched_patch_knows_the_size_of_its_voxels(make_patches):
    source = make_patches(is_augmented=False)
    assert source.spec.stretch > 1
    assert np.median(volumes_mm3(source)) == pytest.approx(16 * 20 * 12, rel=0.1)


def test_a_patch_is_seen_in_no_finer_voxels_than_the_server_looks_at(make_patches):
    """A third of the case's voxels of 2 mm; the largest share of the region would ask for 20 / (1.3 * 32) = 0.48 mm."""
    source = make_patches(is_augmented=False)
    edges = [source.draw(0, number).edge_mm for number in range(60)]
    assert min(edges) == pytest.approx(2 / 3)
    assert np.median(edges) > 0.7


def volumes_mm3(source):
    return np.array([(float(p.truth.sum()) * p.edge_mm**3) for p in (source.draw(0, n) for n in range(20))])


def test_patches_are_finite_never_empty_and_of_the_patch_shape(make_patches):
    source = make_patches(synthetic_share=0.5, seed=7)
    for number in range(12):
        patch = source.draw(3, number)
        assert patch.image.shape == patch.truth.shape == (32, 32, 32)
        assert (patch.image.dtype, patch.truth.dtype) == (torch.float32, torch.bool)
        assert torch.isfinite(patch.image).all()
        assert patch.truth.sum() >= MIN_TARGET_VOXELS
        assert patch.edge_mm > 0


def test_a_patch_is_known_by_its_slot_and_number_in_whatever_order_it_is_drawn(make_patches):
    places = [(slot, number) for slot in range(2) for number in range(5)]
    first, second = make_patches(synthetic_share=0.5, seed=7), make_patches(synthetic_share=0.5, seed=7)
    forwards = {place: first.draw(*place) for place in places}
    backwards = {place: second.draw(*place) for place in reversed(places)}
    assert all(same(forwards[place], backwards[place]) for place in places)
    assert same(first.draw(1, 2), forwards[1, 2])
    different = [forwards[0, 0], forwards[0, 1], forwards[1, 0], make_patches(seed=8).draw(0, 0)]
    assert not any(same(a, b) for n, a in enumerate(different) for b in different[:n])


def test_structures_too_small_for_the_patch_are_refused(make_patches):
    source = make_patches()
    source.spec = source.spec.__class__(patch_shape=(32, 32, 32), spacing_mm=(20.0,) * 3, min_zoom=1.0)
    with pytest.raises(TrainingError, match=r"no target of 40 voxels .*finer spacing"):
        source.draw(0, 0)


def test_patches_lie_as_patients_do_unless_they_are_turned(make_patches, monkeypatch):
    turned = []

    def remembered(image, truth, may_permute, generator):
        turned.append(1)
        return image, truth

    monkeypatch.setattr("deepgrow3d_app.training.patches.turn", remembered)
    for share, least, most in ((0.0, 0, 0), (0.3, 3, 20), (1.0, 30, 30)):
        turned.clear()
        patches = make_patches(synthetic_share=0.0, turned_share=share)
        for number in range(30):
            patches.draw(0, number)
        assert least <= len(turned) <= most


def test_turning_moves_image_and_truth_alike():
    image = torch.arange(6.0**3).reshape(6, 6, 6)
    truth = image % 7 == 0
    generator = np.random.default_rng(1)
    for _ in range(20):
        turned, turned_truth = turn(image, truth, True, generator)
        assert torch.equal(turned % 7 == 0, turned_truth)
        assert sorted(turned.flatten().tolist()) == sorted(image.flatten().tolist())


@pytest.fixture
def two_boxes():
    """An image that is 1 in two boxes and 0 elsewhere, and where it is 1."""
    truth = torch.zeros(24, 30, 36, dtype=torch.bool)
    truth[5:13, 6:20, 8:24] = True
    truth[15:21, 21:27, 4:12] = True
    return truth.float(), truth


def centre(truth):
    return torch.nonzero(truth).float().mean(dim=0)


def test_coarsening_keeps_the_grid_and_stays_aligned():
    """Of boxes of 16 x 16 x 16 mm, voxels of up to 5 mm leave most, and move them to no side on average."""
    generator = np.random.default_rng(0)
    moved = []
    for _ in range(150):
        i, j, k = generator.integers(2, (22, 18, 10))
        truth = torch.zeros(40, 36, 20, dtype=torch.bool)
        truth[i : i + 16, j : j + 16, k : k + 8] = True
        image, coarse = coarsen(truth.float(), truth, (1.0, 1.0, 2.0), generator)
        assert image.shape == coarse.shape == truth.shape
        # The image is a picture of the truth, and so it is of the coarse truth.
        assert agreement(image > 0.5, coarse) > 0.75
        assert agreement(truth, coarse) > 0.7
        if not torch.equal(image, truth.float()):
            moved.append(centre(coarse) - centre(truth))
    assert 25 < len(moved) < 65  # three in ten, less those too fine to tell
    assert torch.stack(moved).mean(dim=0).abs().max() < 0.3
    assert torch.stack(moved).abs().max() < 1.6


def test_coarsening_leaves_a_coarse_patch_alone(two_boxes):
    image, truth = two_boxes
    generator = np.random.default_rng(0)
    for _ in range(20):
        coarse, coarse_truth = coarsen(image, truth, (5.0, 5.0, 5.0), generator)
        assert torch.equal(coarse, image)
        assert torch.equal(coarse_truth, truth)


def test_coarsening_is_bounded_as_the_server_bounds_how_fine_it_looks():
    """No voxel is coarser than three of the patch on all axes: at the centre of each block of 27, nothing changes."""
    blocks = torch.rand(8, 8, 8)
    image = blocks.repeat_interleave(3, 0).repeat_interleave(3, 1).repeat_interleave(3, 2)
    generator = np.random.default_rng(3)
    coarse = [coarsen(image, image > 0.5, (0.2, 0.2, 0.2), generator)[0] for _ in range(200)]
    changed = [one for one in coarse if not torch.equal(one, image)]
    as_seen = [one for one in changed if torch.allclose(one[1::3, 1::3, 1::3], blocks, atol=1e-5)]
    assert len(changed) > 40
    assert 0.3 * len(changed) < len(as_seen) < 0.7 * len(changed)  # the others have thick slices


def test_enhancement_changes_each_structure_as_a_whole_and_nothing_else():
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    change = enhancement(labels, np.random.default_rng(1))
    assert change.dtype == np.float32
    assert (change[labels == 0] == 0).all()
    values = [np.unique(change[labels == value]) for value in (1, 2, 3)]
    assert all(len(one) == 1 for one in values)
    assert len({float(one[0]) for one in values} | {0.0}) == 4


def test_warping_moves_image_and_truth_alike(two_boxes):
    image, truth = two_boxes
    generator = np.random.default_rng(0)
    warped = [warp(image, truth, generator) for _ in range(20)]
    assert all(torch.equal(one > 0.5, mask) for one, mask in warped)
    assert any(not torch.equal(mask, truth) for _, mask in warped)


def test_appearance_changes_keep_the_grid():
    generator = np.random.default_rng(2)
    image = torch.rand(8, 10, 12)
    changed = [change_appearance(image, generator) for _ in range(20)]
    assert all(other.shape == image.shape for other in changed)
    assert any(not torch.equal(other, image) for other in changed)


def test_remapping_keeps_the_order_of_intensities_and_what_lies_beyond_the_knots():
    generator = np.random.default_rng(5)
    image = torch.linspace(-3, 3, 600).reshape(6, 10, 10)
    outside = image.abs() >= REMAP_KNOTS[-1]
    for _ in range(20):
        other = remapped(image, generator)
        assert bool((other.flatten().diff() > 0).all())
        assert torch.allclose(other[outside], image[outside], atol=1e-5)
        assert float((other - image).abs().max()) > 0.01


def test_made_up_scenes_are_seen_in_coarse_voxels_too(make_patches, monkeypatch):
    """As many as real patches: else small structures in the voxels of a coarse scanner are those of a few patients."""
    seen = []

    def spy(image, truth, spacing_mm, generator):
        seen.append(spacing_mm)
        return image, truth

    monkeypatch.setattr("deepgrow3d_app.training.patches.coarsen", spy)
    source = make_patches(synthetic_share=1.0)
    edges = [source.draw(0, number).edge_mm for number in range(30)]
    assert {round(np.cbrt(np.prod(spacing)), 6) for spacing in seen} >= {round(edge, 6) for edge in edges}


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


def test_contents_fill_a_part_of_a_structure_with_something_else():
    """Between a twentieth and a half of what is inside of its wall, if it has one."""
    generator = np.random.default_rng(6)
    image = torch.zeros(20, 20, 20)
    structure = torch.zeros(20, 20, 20, dtype=torch.bool)
    structure[4:16, 5:15, 6:14] = True
    walled = 0
    for _ in range(40):
        changed = with_contents(image, structure, generator) != image
        assert not (changed & ~structure).any()
        assert 0.04 * 8 * 6 * 4 < changed.sum() <= 0.51 * structure.sum()
        walled += not changed[4].any() and not changed[:, 5].any() and not changed[:, :, 6].any()
    assert 10 < walled < 40  # half of them


def test_labelled_structures_are_filled_at_times_and_nothing_beside_them(make_patches, monkeypatch):
    filled = []

    def spy(image, truth, generator):
        changed = with_contents(image, truth, generator)
        filled.append(bool((changed != image).any()) and not bool(((changed != image) & ~truth).any()))
        return changed

    monkeypatch.setattr("deepgrow3d_app.training.patches.with_contents", spy)
    for source, least, most in ((make_patches(), 1, 20), (make_patches(is_augmented=False), 0, 0)):
        filled.clear()
        for number in range(60):
            source.draw(0, number)
        assert all(filled)
        assert least <= len(filled) <= most


def test_a_structure_that_is_all_wall_has_no_contents():
    sheet = torch.zeros(12, 12, 12, dtype=torch.bool)
    sheet[5:7] = True
    generator = np.random.default_rng(7)
    images = [with_contents(torch.zeros(12, 12, 12), sheet, generator) for _ in range(20)]
    assert 0 < sum(bool(image.any()) for image in images) < 20


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


def test_axes_of_different_spacing_are_not_exchanged():
    """A slope along k, of thick slices, stays one along k."""
    image = torch.arange(6.0).expand(6, 6, 6)
    generator = np.random.default_rng(1)
    for _ in range(20):
        turned, _ = turn(image, image > 2, False, generator)
        assert len(turned.unique(dim=2)[0, 0]) == 6
        assert torch.equal(turned[:1, :1].expand(6, 6, 6), turned)
