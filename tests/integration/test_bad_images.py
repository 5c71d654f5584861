"""Images that are no volume are refused with a reason, and leave every file as it was."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.integration.bad_input import CLICKS, assert_refused, nifti

if TYPE_CHECKING:
    from tests.integration.launcher import Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("nothing_is_written")]


def not_finite() -> bytes:
    voxels = np.zeros((6, 7, 8), np.float32)
    voxels[0, 0, :2] = (np.nan, np.inf)
    return nifti(voxels)


def lying_header() -> bytes:
    content = bytearray(nifti(np.zeros((6, 7, 8), np.int16)))
    content[42:48] = np.array([30000, 30000, 30000], np.int16).tobytes()
    return bytes(content)


def singular_affine() -> bytes:
    content = bytearray(nifti(np.zeros((6, 7, 8), np.int16)))
    content[280:296] = bytes(16)  # srow_x
    return bytes(content)


BAD_VOLUMES: dict[str, tuple[str, Callable[[], bytes], tuple[str, ...]]] = {
    "text": ("ct.nii.gz", lambda: b"this is no image", ("not gzip",)),
    "empty": ("ct.nii", lambda: b"", ("Check that",)),
    "cut off": ("ct.nii", lambda: nifti(np.zeros((9, 9, 9), np.int16))[:-100], ("Check that the file is complete",)),
    "4-D": ("ct.nii", lambda: nifti(np.zeros((4, 5, 6, 2), np.int16)), ("4 dimensions", "one 3-D image")),
    "2-D": ("ct.nii", lambda: nifti(np.zeros((4, 5), np.int16)), ("3-D",)),
    "not finite": ("ct.nii", not_finite, ("2 of its 336 voxels", "Replace them")),
    "singular affine": ("ct.nii", singular_affine, ("affine", "Repair")),
    "promises 54 TB": ("ct.nii", lying_header, ("30000 x 30000 x 30000", "at most")),
    "NRRD inside NIfTI": ("ct.nii", lambda: b"NRRD0004\ntype: short\n\n", ("Check that",)),
    "NIfTI inside NRRD": ("ct.nrrd", lambda: nifti(np.zeros((6, 7, 8), np.int16)), ("NRRD",)),
    "NRRD elsewhere": (
        "ct.nrrd",
        lambda: b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n",
        ("ct.nrrd",),
    ),
    "PNG": ("ct.png", lambda: b"\x89PNG\r\n", ()),
    "no extension": ("ct", lambda: nifti(np.zeros((6, 7, 8), np.int16)), ()),
    "segmentation": ("ct.seg.nrrd", lambda: b"NRRD0004\n", (".nrrd",)),
}


@pytest.mark.parametrize("case", BAD_VOLUMES)
def test_upload_that_is_no_volume(server: Server, case: str) -> None:
    name, content, says = BAD_VOLUMES[case]
    says = tuple(text for text in says if text != "ct.nrrd")
    files = {"file": (name, content())}
    assert_refused(server.request("PUT", "/datastore/image", params={"image": "new"}, files=files), 400, *says)
    assert_refused(server.request("PUT", "/session/", files={"files": (name, content())}), 400, *says)
    assert_refused(server.infer(CLICKS, files=files), 400, *says)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("truncated", ("truncated.nii.gz", "complete")),
        ("four-dimensional", ("four-dimensional.nii.gz", "4 dimensions")),
    ],
)
def test_study_that_is_no_volume(server: Server, phantom: Phantom, image: str, says: tuple[str, ...]) -> None:
    assert_refused(server.infer(CLICKS, image=image), 400, *says)
    assert_refused(server.save_label(image, "label.nii.gz", phantom.label_file), 400, *says)
    assert_refused(server.save_label(image, "label.bin", b"\0" * 120), 400, *says)


def test_image_in_place_of_one_with_a_label(server: Server) -> None:
    files = {"file": ("ct.nii", nifti(np.zeros((6, 7, 8), np.int16)))}
    response = server.request("PUT", "/datastore/image", params={"image": "labelled"}, files=files)
    assert_refused(response, 400, "'labelled'", "'final'", "6 x 7 x 8", "Choose another image id")


@pytest.mark.parametrize("params", ["[]", '"x"', '{"a": NaN}', "{"])
def test_params_of_an_image_that_are_no_object(server: Server, phantom: Phantom, params: str) -> None:
    files = {"file": ("ct.nii.gz", phantom.file.read_bytes()), "params": (None, params)}
    response = server.request("PUT", "/datastore/image", params={"image": "new"}, files=files)
    assert_refused(response, 400, "'params'")


@pytest.mark.parametrize("info", ["[]", '"x"', '{"a": Infinity}', "{"])
def test_info_that_is_no_object(server: Server, info: str) -> None:
    places = (("image", {"image": "ct-trunk"}), ("label", {"label": "labelled", "tag": "final"}))
    for path, query in places:
        response = server.request("PUT", f"/datastore/{path}/info", params=query, data={"info": info})
        assert_refused(response, 400, "'info'")


def two_volumes(phantom: Phantom) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{n}.nii.gz", phantom.file.read_bytes())) for n in range(2)]


def zip_of(**members: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return archive.getvalue()


def test_session_with_two_volumes(server: Server, phantom: Phantom) -> None:
    assert_refused(server.request("PUT", "/session/", files=two_volumes(phantom)), 400, "2 files", "one image")


def test_session_without_files(server: Server) -> None:
    assert_refused(server.request("PUT", "/session/"), 422, "body.files")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"no zip", "zip file", id="no zip"),
        pytest.param(zip_of(), "no image", id="empty"),
        pytest.param(zip_of(**{"../../../evil.nii.gz": b"junk"}), "not gzip", id="climbing"),
        pytest.param(zip_of(**{"/tmp/evil.nii": b"junk"}), "image.nii", id="absolute"),
        pytest.param(zip_of(**{"a.txt": b"junk", "b.txt": b"junk"}), "DICOM", id="no image"),
        pytest.param(zip_of(**{"a.nii": b"x" * 5000})[:-60], "zip file", id="cut off"),
    ],
)
def test_session_from_a_bad_archive(server: Server, content: bytes, says: str) -> None:
    files = {"files": ("series.zip", content)}
    assert_refused(server.request("PUT", "/session/", params={"uncompress": "true"}, files=files), 400, says)


@pytest.mark.parametrize("expiry", ["-1", "soon", "1e400"])
def test_session_that_expires_at_no_time(server: Server, phantom: Phantom, expiry: str) -> None:
    files = {"files": ("ct.nii.gz", phantom.file.read_bytes())}
    response = server.request("PUT", "/session/", params={"expiry": expiry}, files=files)
    assert_refused(response, 422, "query.expiry", repr(expiry))
