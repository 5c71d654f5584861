"""An 8 x 8 x 8 case whose clicks and scores can be checked on paper."""

from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.evaluation.protocol import annotate, repeat
from deepgrow3d_app.evaluation.run import run_evaluation
from deepgrow3d_app.volume.volume import Volume

VOLUME = Volume(np.zeros((8, 8, 8), dtype=np.int16), np.eye(4))
TRUTH = np.zeros((8, 8, 8), dtype=bool)
TRUTH[1:4, 1:4, 1:4] = True  # 27 voxels, middle (2, 2, 2)


@dataclass
class Cubes:
    """Answers with the cube of 3 voxels around each foreground click, less that around each background click."""

    name: str = "cubes"
    seen: list[tuple[tuple[Click, ...], int | None]] = field(default_factory=list)

    def segment(self, volume, clicks, previous):
        self.seen.append((tuple(clicks), None if previous is None else int(previous.sum())))
        mask = np.zeros(volume.shape, dtype=np.uint8)
        for click in clicks:
            around = tuple(slice(max(0, p - 1), p + 2) for p in click.index)
            mask[around] = click.is_positive
        return mask


class Stubborn:
    """Always answers with the same box of 3 x 3 x 6 voxels: the structure and as much again."""

    name = "stubborn"

    def segment(self, volume, clicks, previous):
        mask = np.zeros(volume.shape, dtype=np.uint8)
        mask[1:4, 1:4, 1:7] = 1
        return mask


def test_one_click_in_the_middle_solves_the_cube_and_nothing_is_clicked_after():
    method = Cubes()
    rounds = list(annotate(method, VOLUME, TRUTH, 3))
    assert [r.click for r in rounds] == [Click((2, 2, 2)), None, None]
    assert [r.dice for r in rounds] == [1, 1, 1]
    assert method.seen == [((Click((2, 2, 2)),), None)]


def test_an_error_is_clicked_as_background_and_never_twice():
    rounds = list(annotate(Stubborn(), VOLUME, TRUTH, 3))
    assert [r.dice for r in rounds] == pytest.approx([2 * 27 / (27 + 54)] * 3)
    first, second, third = (r.click for r in rounds)
    assert first == Click((2, 2, 2))
    assert second == Click((2, 2, 5), is_positive=False)  # the middle of the 27 voxels too many
    assert third is not None
    assert not third.is_positive
    assert third.index != second.index


def test_the_previous_answer_is_handed_on():
    two = TRUTH.copy()
    two[6, 6, 6] = True
    method = Cubes()
    list(annotate(method, VOLUME, two, 2))
    assert [previous for _, previous in method.seen] == [None, 27]


def test_repeated_clicks_are_given_one_more_each_round():
    clicks = [Click((2, 2, 2)), None, Click((6, 6, 6), is_positive=False)]
    method = Cubes()
    rounds = list(repeat(method, VOLUME, TRUTH, clicks))
    assert [r.click for r in rounds] == clicks
    assert [len(given) for given, _ in method.seen] == [1, 2]


def test_a_structure_that_is_not_in_the_labels_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "image.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "labels.nii.gz")
    (tmp_path / "structures.json").write_text('{"structures": {"liver": {"value": 9}}}')
    with pytest.raises(NotFound, match="'liver' has no voxel"):
        run_evaluation(tmp_path, tmp_path / "any.safetensors", ["liver"], 1, False, Console())
    with pytest.raises(NotFound, match="no structure 'spleen'"):
        run_evaluation(tmp_path, tmp_path / "any.safetensors", ["spleen"], 1, False, Console())
