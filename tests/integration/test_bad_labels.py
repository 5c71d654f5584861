"""Labels that do not fit their image are refused with a reason, and leave every file as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.integration.bad_input import assert_refused, nifti

if TYPE_CHECKING:
    from tests.integration.launcher import Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("nothing_is_written")]


def other_shape(phantom: Phantom) -> bytes:
    return nifti(phantom.label[:-1], phantom.affine)


def other_axis_order(phantom: Phantom) -> bytes:
    return nifti(phantom.label.transpose(1, 0, 2), phantom.affine[:, [1, 0, 2, 3]])


def other_place(phantom: Phantom) -> bytes:
    moved = phantom.affine.copy()
    moved[0, 3] += 3
    return nifti(phantom.label, moved)


def other_values(phantom: Phantom) -> bytes:
    return nifti(phantom.label.astype(np.float32) / 2, phantom.affine)


def below_zero(phantom: Phantom) -> bytes:
    return nifti(phantom.label.astype(np.int16) - 1, phantom.affine)


def too_large_values(phantom: Phantom) -> bytes:
    return nifti(phantom.label.astype(np.int16) * 100, phantom.affine)


def cut_off(phantom: Phantom) -> bytes:
    return phantom.label_file[:300]


def one_byte_short(phantom: Phantom) -> bytes:
    return phantom.label.tobytes()[1:]


def one_byte_over(phantom: Phantom) -> bytes:
    return phantom.label.tobytes() + b"\0"


def sixteen_bits(phantom: Phantom) -> bytes:
    return phantom.label.astype(np.uint16).tobytes()


def four_dimensional(phantom: Phantom) -> bytes:
    return nifti(np.stack([phantom.label] * 2, axis=3), phantom.affine)


def garbage(phantom: Phantom) -> bytes:
    return b"garbage"


def nothing(phantom: Phantom) -> bytes:
    return b""


BAD_LABELS = [
    pytest.param("label.nii.gz", garbage, ("not gzip",), id="garbage"),
    pytest.param("label.nii", garbage, ("complete",), id="garbage, not compressed"),
    pytest.param("label.nrrd", garbage, ("NRRD",), id="garbage as NRRD"),
    pytest.param("label.seg.nrrd", garbage, ("NRRD",), id="garbage as segmentation"),
    pytest.param("label.bin", garbage, ("7 bytes", "23760 voxels"), id="garbage as raw bytes"),
    pytest.param("label.nii.gz", nothing, ("not gzip",), id="empty"),
    pytest.param("label.bin", nothing, ("0 bytes", "23760 voxels"), id="empty raw bytes"),
    pytest.param("label.nii.gz", cut_off, ("Check that the file is complete",), id="cut off"),
    pytest.param("label.bin", one_byte_short, ("23759 bytes", "30 x 36 x 22"), id="a byte short"),
    pytest.param("label.bin", one_byte_over, ("23761 bytes", "30 x 36 x 22"), id="a byte over"),
    pytest.param("label.bin", sixteen_bits, ("47520 bytes", "30 x 36 x 22"), id="two bytes a voxel"),
    pytest.param("label.nii", other_shape, ("29 x 36 x 22", "30 x 36 x 22"), id="another shape"),
    pytest.param("label.nii", other_axis_order, ("36 x 30 x 22", "30 x 36 x 22"), id="another axis order"),
    pytest.param("label.nii", other_place, ("voxels from its image", "geometry"), id="another place"),
    pytest.param("label.nii", other_values, (".5", "whole numbers"), id="fractions"),
    pytest.param("label.nii", below_zero, ("-1", "from 0"), id="below zero"),
    pytest.param("label.nii", too_large_values, ("255",), id="beyond a byte"),
    pytest.param("label.nii", four_dimensional, ("4 dimensions", "one 3-D image"), id="4-D"),
    pytest.param("label.json", garbage, ("'label.json'", ".seg.nrrd"), id="another format"),
    pytest.param("label", garbage, ("'label'", ".seg.nrrd"), id="no format"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD_LABELS)
def test_label_that_does_not_fit(
    server: Server, phantom: Phantom, name: str, content: Callable[[Phantom], bytes], says: tuple[str, ...]
) -> None:
    earlier = server.request("GET", "/datastore/label", params={"label": "labelled", "tag": "final"})
    assert_refused(server.save_label("labelled", name, content(phantom)), 400, *says)
    assert_refused(server.save_label("labelled", name, content(phantom), tag="second opinion"), 400, *says)
    kept = server.request("GET", "/datastore/label", params={"label": "labelled", "tag": "final"})
    assert kept.content == earlier.content == phantom.label_file


@pytest.mark.parametrize("params", ["[]", '"x"', '{"label_info": NaN}', "{"])
def test_params_of_a_label_that_are_no_object(server: Server, phantom: Phantom, params: str) -> None:
    files = {"label": ("label.nii.gz", phantom.label_file), "params": (None, params)}
    response = server.request("PUT", "/datastore/label", params={"image": "labelled"}, files=files)
    assert_refused(response, 400, "'params'")


def test_no_label_in_the_request(server: Server) -> None:
    assert_refused(server.request("PUT", "/datastore/label", params={"image": "labelled"}), 422, "body.label")


def test_previous_mask_of_another_shape(server: Server, phantom: Phantom) -> None:
    files = {"label": ("label.nii", other_shape(phantom))}
    response = server.infer({"foreground": [phantom.centre], "background": []}, files=files, image="labelled")
    assert_refused(response, 400, "29 x 36 x 22", "30 x 36 x 22")


def test_values_that_nothing_names(server: Server, phantom: Phantom) -> None:
    saved = server.save_label("labelled", "label.nii.gz", phantom.label_file, names={1: "liver", 2: "spleen"})
    assert_refused(saved, 400, "voxels of the value 3, 4, and label_info names only 1, 2")
