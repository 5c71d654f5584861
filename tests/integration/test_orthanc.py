"""Each with an Orthanc of its own: one that is gone, one that asks who calls, series that are odd or no volume."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from deepgrow3d_app.serving.dicomweb.orthanc import running_orthanc, store_files
from deepgrow3d_app.volume.files import read_volume
from tests.integration.conftest import ROOT
from tests.integration.dicomweb import NAMES, needs_orthanc, serve
from tests.integration.launcher import Launcher, free_port

pytestmark = [pytest.mark.integration, needs_orthanc]


def test_clicks_need_no_orthanc_once_a_series_is_here(tmp_path: Path, launcher: Launcher, series: Any) -> None:
    one, files = series["axial"]
    other, other_files = series["oblique"]
    with running_orthanc(tmp_path / "orthanc", free_port()) as address:
        store_files(address, [*files, *other_files])
        server = serve(launcher, address)
        before = server.mask(one.uid, [one.centre])
        server.stop()
    server = serve(launcher, address)  # starts without it
    np.testing.assert_array_equal(server.mask(one.uid, [one.centre]), before)
    assert server.json("/info/")["datastore"]["total"] == 2
    for answer in (
        server.infer({"foreground": [other.centre], "background": []}, image=other.uid),
        server.save_label(one.uid, "label.bin", one.label.tobytes(order="F"), names=NAMES),
        server.request("GET", "/proxy/dicom/qido/studies"),
    ):
        assert answer.status_code == 502
        assert address.url in answer.json()["detail"]
    assert server.json("/info/")["datastore"]["completed"] == 0


def test_credentials_stay_with_the_server(tmp_path: Path, launcher: Launcher, series: Any) -> None:
    one, files = series["axial"]
    with running_orthanc(tmp_path / "orthanc", free_port(), "ann", "s3cret") as address:
        store_files(address, files)
        bare = address.url
        stranger = launcher.start_command(launcher.folder, "serve", "--studies", bare)
        answer = stranger.request("GET", "/proxy/dicom/qido/studies")
        assert answer.status_code == 401
        assert "status 401, check user name and password" in stranger.log.read_text()
        stranger.stop()
        launcher.settings.update({"MONAI_LABEL_DICOMWEB_USERNAME": "ann", "MONAI_LABEL_DICOMWEB_PASSWORD": "s3cret"})
        server = launcher.start_command(launcher.folder, "serve", "--studies", bare)
        assert server.request("GET", "/proxy/dicom/qido/studies").json()
        server.mask(one.uid, [one.centre])
        del launcher.settings["MONAI_LABEL_DICOMWEB_USERNAME"], launcher.settings["MONAI_LABEL_DICOMWEB_PASSWORD"]
        in_address = bare.replace("://", "://ann:s3cret@")
        again = launcher.start_command(launcher.folder, "serve", "--studies", in_address)
        assert again.json("/info/")["datastore"]["total"] == 1
        for running in (server, again):
            shown = running.log.read_text() + running.request("GET", "/info/").text
            assert "s3cret" not in shown


def test_series_that_are_no_volume_are_refused_with_a_reason(tmp_path: Path, launcher: Launcher, series: Any) -> None:
    one, files = series["axial"]
    with running_orthanc(tmp_path / "orthanc", free_port()) as address:
        store_files(address, [file for number, file in enumerate(files) if number != 5])
        server = serve(launcher, address)
        answer = server.infer({"foreground": [one.centre], "background": []}, image=one.uid)
        assert answer.status_code == 400
        assert "apart" in answer.json()["detail"]
        store_files(address, [files[5]])  # the slice that was late
        time.sleep(2.5)  # as old as the list may be
        server.infer({"foreground": [one.centre], "background": []}, image=one.uid)
        time.sleep(1)
        server.mask(one.uid, [one.centre])


def test_jpeg_2000_as_scanners_send_it(tmp_path: Path, launcher: Launcher) -> None:
    files: Sequence[Path] = sorted((ROOT / "sample-data" / "dicom-slab").glob("*.dcm"))
    uid = str(pydicom.dcmread(files[0]).SeriesInstanceUID)
    with running_orthanc(tmp_path / "orthanc", free_port()) as address:
        store_files(address, files)
        server = serve(launcher, address)
        image = server.request("GET", "/datastore/image", params={"image": uid})
        (tmp_path / "slab.nii.gz").write_bytes(image.content)
        sent = nib.Nifti1Image.from_filename(tmp_path / "slab.nii.gz")
        np.testing.assert_array_equal(np.asarray(sent.dataobj), read_volume(files[0].parent).array)
        mask = server.mask(uid, [[330, 230, 10]])
        assert mask.shape == (512, 512, 20)
        assert mask[330, 230, 10] == 1
