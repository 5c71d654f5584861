"""Around the clicks over HTTP: sessions come and go, labels are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk

from tests.integration.phantom import nifti, voxels_of
from tests.integration.trunk import IMAGE, assert_same_grid, leaky_client

if TYPE_CHECKING:
    from tests.integration.launcher import Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def new_study(server: Server, phantom: Phantom) -> Iterator[str]:
    """The id of a study of this test's own: the phantom."""
    files = {"file": ("phantom.nii.gz", phantom.file.read_bytes())}
    response = server.request("PUT", "/datastore/image", params={"image": "new study"}, files=files)
    assert response.json() == {"image": "new study"}
    yield "new study"
    assert server.request("DELETE", "/datastore/image", params={"id": "new study"}).ok


@leaky_client
def test_a_session_lives_until_it_is_deleted(client: Any, server: Server, phantom: Phantom) -> None:
    before = server.files()
    session_id = client.create_session(str(phantom.file))["session_id"]
    params = {
        "label": "tissue",
        "foreground": [phantom.centre],
        "background": [[2, 2, 2]],
        "result_extension": ".nii.gz",
    }
    file, _ = client.infer("deepgrow3d", "whatever the viewer calls it", params, session_id=session_id)
    mask = assert_same_grid(Path(file), phantom.file)
    assert mask[tuple(phantom.centre)] == 1
    assert mask[2, 2, 2] == 0
    assert (phantom.tissue & (mask > 0)).sum() > 0.5 * mask.sum()
    image = server.request("GET", f"/session/{session_id}", params={"image": "true"})
    assert image.content == phantom.file.read_bytes()
    assert client.get_session(session_id)["name"] == session_id
    assert IMAGE in server.json("/datastore/?output=all")["objects"]
    assert len(server.json("/datastore/?output=all")["objects"]) == 4

    client.remove_session(session_id)

    assert server.request("GET", f"/session/{session_id}").status_code == 404
    gone = server.infer(params, session_id=session_id)
    assert gone.status_code == 404
    assert session_id in gone.json()["detail"]
    assert server.files() == before


def test_an_image_can_come_with_the_click(server: Server, phantom: Phantom) -> None:
    params = {"foreground": [phantom.centre], "background": [], "result_extension": ".nrrd", "result_compress": False}
    stored = server.infer(params, image="labelled", output="image")
    before = server.files()
    sent = server.infer(params, files={"file": ("ct.nii.gz", phantom.file.read_bytes())}, output="image")
    assert sent.content == stored.content
    assert server.files() == before


def as_nifti(phantom: Phantom, folder: Path) -> bytes:
    return phantom.label_file


def as_nrrd(phantom: Phantom, folder: Path) -> bytes:
    image = sitk.GetImageFromArray(phantom.label.transpose())
    image.CopyInformation(sitk.ReadImage(phantom.file))
    sitk.WriteImage(image, folder / "label.nrrd", True)
    return (folder / "label.nrrd").read_bytes()


def as_raw_bytes(phantom: Phantom, folder: Path) -> bytes:
    return phantom.label.tobytes(order="F")


@pytest.mark.parametrize(
    ("name", "encode"), [("label.nii.gz", as_nifti), ("label.nrrd", as_nrrd), ("label.bin", as_raw_bytes)]
)
def test_a_saved_label_comes_back_voxel_for_voxel(
    server: Server,
    phantom: Phantom,
    new_study: str,
    tmp_path: Path,
    name: str,
    encode: Callable[[Phantom, Path], bytes],
) -> None:
    before = server.json("/info/")["datastore"]

    names = {1: "liver", 2: "spleen", 3: "aorta", 4: "stomach"}
    saved = server.save_label(new_study, name, encode(phantom, tmp_path), names=names)

    assert saved.json() == {"image": new_study, "label": new_study, "version": 1, "notice": None}
    back = server.request("GET", "/datastore/label", params={"label": new_study, "tag": "final"})
    assert 'filename="' in back.headers["content-disposition"] or "filename*=" in back.headers["content-disposition"]
    (tmp_path / "back.nii.gz").write_bytes(back.content)
    image = nib.Nifti1Image.from_filename(tmp_path / "back.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), phantom.label)
    assert np.allclose(image.affine, phantom.affine, atol=1e-4)
    after = server.json("/info/")["datastore"]
    assert (after["total"], after["completed"]) == (before["total"], before["completed"] + 1)
    assert after["label_tags"] == {"final": before["label_tags"]["final"] + 1}
    assert set(server.json("/datastore/?output=all")["objects"][new_study]["labels"]) == {"final"}
    info = server.request("GET", "/datastore/label/info", params={"label": new_study, "tag": "final"}).json()
    assert info["label_info"] == [{"name": text, "idx": value} for value, text in names.items()]


@leaky_client
def test_the_client_saves_a_mask_and_is_handed_the_next_image(
    client: Any, server: Server, phantom: Phantom, new_study: str, tmp_path: Path
) -> None:
    assert client.next_sample("first", {})["id"] != "labelled"
    params = {"label": "tissue", "foreground": [phantom.centre], "background": [], "result_extension": ".nii.gz"}
    file, _ = client.infer("deepgrow3d", new_study, params)
    client.save_label(new_study, file, params={"label_info": [{"name": "tissue", "idx": 1}]})
    back = client.download_label(new_study, "final")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(back)), sitk.GetArrayFromImage(sitk.ReadImage(file)))
    assert client.info()["datastore"]["completed"] == 2
    unlabelled = {client.next_sample("random", {})["id"] for _ in range(20)}
    assert unlabelled <= {IMAGE, "truncated", "four-dimensional"}


def test_a_label_of_another_tag_is_no_final_one(server: Server, phantom: Phantom, new_study: str) -> None:
    assert server.save_label(new_study, "label.nii.gz", phantom.label_file, tag="second opinion").ok
    datastore = server.json("/info/")["datastore"]
    assert datastore["completed"] == 1
    assert datastore["label_tags"] == {"final": 1, "second opinion": 1}
    assert server.request("HEAD", "/datastore/label", params={"image": new_study, "tag": "final"}).status_code == 404


def test_whoever_opened_an_image_that_was_replaced_since_is_told(
    server: Server, phantom: Phantom, new_study: str
) -> None:
    def etag() -> str:
        tagged = server.request("GET", "/datastore/image", params={"image": new_study}).headers["etag"]
        return tagged.removeprefix('"').removesuffix('"')

    def click(etag: str) -> requests.Response:
        params = {"foreground": [phantom.centre], "background": [], "image_etag": etag}
        return server.infer(params, image=new_study, output="json")

    def save(etag: str) -> requests.Response:
        files = {"label": ("l.nii.gz", phantom.label_file), "params": (None, json.dumps({"image_etag": etag}))}
        return server.request("PUT", "/datastore/label", params={"image": new_study}, files=files)

    opened = etag()
    assert click(opened).ok
    other = nifti(voxels_of(phantom.file.read_bytes())[::-1], phantom.affine)
    files = {"file": ("other.nii.gz", other)}
    assert server.request("PUT", "/datastore/image", params={"image": new_study}, files=files).ok
    for refused in (click(opened), save(opened)):
        assert refused.status_code == 409
        assert refused.json()["detail"] == f"The image '{new_study}' was replaced since it was opened. Open it again."
    assert server.request("HEAD", f"/datastore/label?image={new_study}&tag=final").status_code == 404
    assert click(etag()).ok
    assert save(etag()).ok
