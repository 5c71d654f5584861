"""Studies on a DICOMweb server: a real Orthanc, the real server before it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import requests

from deepgrow3d_app import __version__
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.serving.dicomweb.orthanc import running_orthanc, store_files
from deepgrow3d_app.volume.files import read_volume
from tests.integration.dicomweb import NAMES, Series, needs_orthanc, serve
from tests.integration.launcher import Launcher, Server, free_port
from tests.integration.phantom import voxels_of
from tests.integration.slicer import SlicerModule, SlicerVolume

pytestmark = [pytest.mark.integration, needs_orthanc]


@dataclass(frozen=True, slots=True, eq=False)
class Hospital:
    """Orthanc, and the server before it."""

    address: DicomWebAddress
    server: Server

    def segmentations(self, series_uid: str) -> list[pydicom.Dataset]:
        """All that Orthanc has of segmentations of one series, as files."""
        root = self.address.url.rpartition("/")[0]
        found: list[pydicom.Dataset] = []
        for instance in requests.get(f"{root}/instances", timeout=60).json():
            header = pydicom.dcmread(io.BytesIO(requests.get(f"{root}/instances/{instance}/file", timeout=60).content))
            if header.Modality == "SEG" and header.ReferencedSeriesSequence[0].SeriesInstanceUID == series_uid:
                found.append(header)
        return found

    def status(self) -> tuple[int, int]:
        """(studies, those with a final label)."""
        status = self.server.json("/info/")["datastore"]
        return status["total"], status["completed"]

    def final_label(self, series_uid: str) -> npt.NDArray[np.uint8]:
        """The final label, as viewers get it."""
        answer = self.server.request("GET", "/datastore/label", params={"label": series_uid, "tag": "final"})
        assert answer.ok, answer.text
        return voxels_of(answer.content)

    def names(self, series_uid: str) -> dict[int, str]:
        """The final label's structures."""
        query = {"label": series_uid, "tag": "final"}
        info = self.server.request("GET", "/datastore/label/info", params=query).json()
        return {entry["idx"]: entry["name"] for entry in info["label_info"]}


@pytest.fixture(scope="module")
def hospital(
    tmp_path_factory: pytest.TempPathFactory, series: Mapping[str, tuple[Series, list[Path]]]
) -> Iterator[Hospital]:
    """One for all tests: each labels a series of its own, and one series is left."""
    folder = tmp_path_factory.mktemp("hospital") / "files"
    folder.mkdir()
    launcher = Launcher(folder)
    try:
        with running_orthanc(folder.with_name("orthanc"), free_port()) as address:
            store_files(address, [file for _, files in series.values() for file in files])
            yield Hospital(address, serve(launcher, address))
    finally:
        launcher.end_all()


def test_series_are_images(hospital: Hospital, series: Any) -> None:
    server = hospital.server
    images = server.json("/datastore/?output=all")["objects"]
    assert set(images) == {one.uid for one, _ in series.values()}
    for name, (one, files) in series.items():
        info = images[one.uid]["image"]["info"]
        assert (info["SeriesDescription"], info["Modality"], info["instances"]) == (name, "CT", len(files))
        image = server.request("GET", "/datastore/image", params={"image": one.uid})
        assert image.ok
        (Path(server.folder) / "image.nii.gz").write_bytes(image.content)
        sent = read_volume(Path(server.folder) / "image.nii.gz")
        np.testing.assert_array_equal(sent.array, one.volume.array)
        np.testing.assert_allclose(sent.affine, one.volume.affine, atol=1e-4)
    assert hospital.status()[0] == len(series)
    sample = server.request("POST", "/activelearning/first").json()
    assert sample["id"] in images
    assert sample["StudyInstanceUID"]


@pytest.mark.parametrize("name", ["oblique", "axial", "reversed", "rle"])
def test_a_click_lies_in_its_mask(hospital: Hospital, series: Any, name: str) -> None:
    one, _ = series[name]
    clicks = {"foreground": [one.centre], "background": [], "result_extension": ".nrrd"}
    answer = hospital.server.infer(clicks, image=one.uid, output="image")
    assert answer.ok, answer.text
    file = io.BytesIO(answer.content)
    header = nrrd.read_header(file)
    mask = nrrd.read_data(header, file)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(lps_to_ras @ header["space directions"].T, one.volume.affine[:3, :3], atol=1e-4)
    np.testing.assert_allclose(lps_to_ras @ header["space origin"], one.volume.affine[:3, 3], atol=1e-4)
    assert mask[tuple(one.centre)] == 1


@pytest.mark.parametrize("name", ["oblique", "axial", "reversed"])
def test_a_saved_label_comes_back_exactly(hospital: Hospital, series: Any, name: str) -> None:
    one, files = series[name]
    raw = one.label.tobytes(order="F")
    total, completed = hospital.status()
    assert hospital.server.save_label(one.uid, "label.bin", raw, names=NAMES).ok
    assert hospital.status() == (total, completed + 1)
    np.testing.assert_array_equal(hospital.final_label(one.uid), one.label)
    assert hospital.names(one.uid) == NAMES
    (seg,) = hospital.segmentations(one.uid)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == list(NAMES.values())
    codes = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in seg.SegmentSequence]
    assert (codes[0].CodeValue, codes[0].CodingSchemeDesignator) == ("78961009", "SCT")
    assert {segment.SegmentAlgorithmType for segment in seg.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert __version__ in str(seg)
    sources = {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}
    referenced = {
        str(item.ReferencedSOPInstanceUID) for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced
    assert referenced <= sources


def test_a_second_save_supersedes_the_first(hospital: Hospital, series: Any) -> None:
    one, _ = series["saved thrice"]
    total, completed = hospital.status()
    for value in (1, 2, 3):
        label = np.where(one.tissue, value, 0).astype(np.uint8)
        assert hospital.server.save_label(one.uid, "label.bin", label.tobytes(order="F"), names=NAMES).ok
        np.testing.assert_array_equal(hospital.final_label(one.uid), label)
        assert hospital.status() == (total, completed + 1)
    (seg,) = hospital.segmentations(one.uid)
    assert seg.SeriesDescription == "DeepGrow 3D final, save 3 (replaces 2)"


def test_a_label_outlives_the_server_and_its_folder(hospital: Hospital, series: Any, launcher: Launcher) -> None:
    one, _ = series["kept"]
    assert hospital.server.save_label(one.uid, "label.bin", one.label.tobytes(order="F"), names=NAMES).ok
    again = Hospital(hospital.address, serve(launcher, hospital.address))  # with an empty folder
    assert again.status() == hospital.status()
    np.testing.assert_array_equal(again.final_label(one.uid), one.label)
    assert again.names(one.uid) == NAMES
    other = np.where(one.tissue, 2, 0).astype(np.uint8)
    assert again.server.save_label(one.uid, "label.bin", other.tobytes(order="F"), names=NAMES).ok
    (seg,) = again.segmentations(one.uid)
    assert seg.SeriesDescription == "DeepGrow 3D final, save 2 (replaces 1)"
    time.sleep(2.5)  # as old as the first server's list may be
    np.testing.assert_array_equal(hospital.final_label(one.uid) > 0, other > 0)

    # Another server saved the label, nobody opened it here, and it is replaced: the history here has it all the same.
    unseen, _ = series["unseen"]
    assert hospital.server.save_label(unseen.uid, "label.bin", unseen.label.tobytes(order="F"), names=NAMES).ok
    time.sleep(2.5)
    other = np.where(unseen.tissue, 3, 0).astype(np.uint8)
    assert again.server.save_label(unseen.uid, "label.bin", other.tobytes(order="F"), names=NAMES).ok
    (seg,) = hospital.segmentations(unseen.uid)
    assert seg.SeriesDescription == "DeepGrow 3D final, save 2 (replaces 1)"
    first = again.server.request("GET", "/datastore/label/version", params={"label": unseen.uid, "version": 1})
    np.testing.assert_array_equal(voxels_of(first.content), unseen.label)


def test_what_a_viewer_stores_becomes_the_final_label(hospital: Hospital, series: Any) -> None:
    """OHIF exports its segmentations through the proxy, as DICOM SEGs of its own making."""
    one, _ = series["stored by a viewer"]
    total, completed = hospital.status()
    clicks = {"foreground": [one.centre], "background": [], "label": "liver"}
    seg = hospital.server.infer(clicks, image=one.uid, output="dicom_seg")
    assert seg.ok, seg.text
    assert seg.headers["content-type"] == "application/dicom"
    sent = pydicom.dcmread(io.BytesIO(seg.content))
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + seg.content + b"\r\n--x--\r\n"
    stored = hospital.server.request(
        "POST",
        "/proxy/dicom/wado/studies",
        data=body,
        headers={"content-type": 'multipart/related; type="application/dicom"; boundary=x'},
    )
    assert stored.ok, stored.text
    assert hospital.status() == (total, completed + 1)
    (found,) = hospital.segmentations(one.uid)
    assert (found.SOPInstanceUID, found.SeriesInstanceUID) == (sent.SOPInstanceUID, sent.SeriesInstanceUID)
    assert hospital.names(one.uid) == {1: "liver"}
    # The same file once more: it supersedes nothing, and least of all itself.
    hospital.server.request(
        "POST", "/proxy/dicom/wado/studies", data=body, headers={"content-type": stored.request.headers["content-type"]}
    )
    assert [str(one_of.SOPInstanceUID) for one_of in hospital.segmentations(one.uid)] == [str(sent.SOPInstanceUID)]
    assert hospital.status() == (total, completed + 1)
    mask = hospital.server.mask(one.uid, [one.centre], label="liver")
    np.testing.assert_array_equal(hospital.final_label(one.uid), mask)


def test_slicer_on_dicomweb_studies(hospital: Hospital, series: Any, tmp_path: Path) -> None:
    """The module knows volumes and no series: it downloads one as NIfTI, and its labels become DICOM SEGs."""
    module = SlicerModule(hospital.server.url, tmp_path)
    sample, path = module.next_sample()
    one = next(one for one, _ in series.values() if one.uid == sample["id"])
    volume = SlicerVolume.load(path)
    np.testing.assert_allclose(volume.ijk_to_ras, one.volume.affine, atol=1e-3)
    point = (one.volume.affine @ (*one.centre, 1))[:3]
    mask_file, _ = module.deepgrow(one.uid, "liver", [volume.ijk(point)])
    mask = SlicerVolume.load(mask_file)
    assert mask.value_at(point) == 1
    assert module.save_label(one.uid, mask_file, ["liver"]).status == 200
    (seg,) = hospital.segmentations(one.uid)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["liver"]
    reopened = SlicerVolume.load(module.reopen(one.uid))
    np.testing.assert_array_equal(reopened.voxels, mask.voxels)
    np.testing.assert_allclose(reopened.ijk_to_ras, volume.ijk_to_ras, atol=1e-3)
    assert module.next_sample()[0]["id"] != one.uid


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/proxy/dicom/qido/studies", 200),
        ("/proxy/dicom/qido/..%2f..%2fsystem", 400),
        ("/proxy/dicom/wado/studies/1.2.3/metadata", 404),
        ("/proxy/dicom/elsewhere/studies", 422),
    ],
)
def test_the_proxy_leads_to_the_studies_only(hospital: Hospital, path: str, status: int) -> None:
    assert hospital.server.request("GET", path).status_code == status
