"""The traffic of 3D Slicer's module, from *connect* to *Submit Label*, on volumes of all orientations."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from monailabel.client.client import MONAILabelClient, MONAILabelUtils

from tests.integration.launcher import Launcher, Server
from tests.integration.phantom import Phantom, nifti, voxels_of
from tests.integration.slicer import SlicerModule, SlicerVolume, multipart

pytestmark = pytest.mark.integration

SPACING_MM = (3.0, 2.5, 5.0)
ORIENTATIONS = {"RAS": (1, 1, 1), "LPS": (-1, -1, 1), "LAS": (-1, 1, 1)}
NAMES = ["spleen", "left kidney"]


@pytest.fixture(scope="module")
def slicer_server(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """The phantom as RAS, LPS, LAS and oblique, and as NRRD, and one whose name has to be quoted."""
    folder = tmp_path_factory.mktemp("slicer") / "files"
    studies = folder / "studies"
    studies.mkdir(parents=True)
    voxels = voxels_of(phantom.file.read_bytes())
    affines = {name: np.diag([*np.multiply(signs, SPACING_MM), 1.0]) for name, signs in ORIENTATIONS.items()}
    for name, affine in {**affines, "oblique": phantom.affine, "a b+c": affines["LPS"]}.items():
        (studies / f"{name}.nii.gz").write_bytes(nifti(voxels, affine))
    image = sitk.ReadImage(str(studies / "oblique.nii.gz"))
    sitk.WriteImage(image, str(studies / "from nrrd.nrrd"), True)
    launcher = Launcher(folder)
    try:
        yield launcher.serve(studies)
    finally:
        launcher.end_all()


@pytest.fixture
def module(slicer_server: Server, tmp_path: Path) -> SlicerModule:
    return SlicerModule(slicer_server.url, tmp_path)


@pytest.fixture
def tissue_ras_mm(phantom: Phantom) -> dict[str, npt.NDArray[np.float64]]:
    """The middle of the tissue in every study, in RAS."""
    places = {name: np.diag([*np.multiply(signs, SPACING_MM), 1.0]) for name, signs in ORIENTATIONS.items()}
    places.update({"oblique": phantom.affine, "from nrrd": phantom.affine, "a b+c": places["LPS"]})
    return {name: (affine @ (*phantom.centre, 1))[:3] for name, affine in places.items()}


def test_requests_are_those_of_the_modules_client(tmp_path: Path) -> None:
    file = tmp_path / "label.nii.gz"
    file.write_bytes(b"\x1f\x8b\r\n\x00label")
    fields = {"params": json.dumps({"label_info": [{"name": "Leber ä", "idx": 1}]})}
    content_type, body = MONAILabelUtils.encode_multipart_formdata(fields, {"label": str(file)})
    assert multipart(fields, {"label": str(file)}) == bytes(body)
    assert content_type == "multipart/form-data; boundary=----------lImIt_of_THE_fIle_eW_$"


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_connect(slicer_server: Server, tmp_path: Path, slashes: str) -> None:
    module = SlicerModule(slicer_server.url + slashes, tmp_path)
    info = module.connect()
    assert module.sent == ["GET /auth/", "GET /info/", "GET /train/?check_if_running=true"]
    assert (info["name"], info["models"]["deepgrow3d"]["type"]) == ("DeepGrow 3D", "deepgrow")
    assert info["models"]["deepgrow3d"]["dimension"] == 3
    assert "spleen" in info["labels"]
    assert info["datastore"]["total"] == 6
    assert set(info) >= {"labels", "models", "trainers", "strategies", "scoring", "train_stats", "datastore"}


@pytest.mark.parametrize("study", [*ORIENTATIONS, "oblique", "from nrrd", "a b+c"])
def test_a_point_lies_in_the_mask_that_is_shown(
    module: SlicerModule, slicer_server: Server, tissue_ras_mm: dict[str, Any], study: str, tmp_path: Path
) -> None:
    image = module.call("GET", "/datastore/image?image=" + study.replace(" ", "%20").replace("+", "%2B"))
    extension = ".nrrd" if study == "from nrrd" else ".nii.gz"
    (tmp_path / f"image{extension}").write_bytes(image.body)
    volume = SlicerVolume.load(tmp_path / f"image{extension}")
    point = tissue_ras_mm[study] + (0.4, -0.3, 0.6)  # no viewer clicks on the very middle of a voxel
    mask_file, params = module.deepgrow(study, "spleen", [volume.ijk(point)])
    assert mask_file.suffix == ".nrrd"
    assert params["label_names"] == {"spleen": 1}
    mask = SlicerVolume.load(mask_file)
    np.testing.assert_allclose(mask.ijk_to_ras, volume.ijk_to_ras, atol=1e-4)
    assert mask.voxels.shape == volume.voxels.shape
    assert mask.value_at(point) == 1
    # A second point, in the background at the edge of the mask, takes its place out.
    edge = np.argwhere(mask.voxels)[0]
    wrong = (mask.ijk_to_ras @ (*edge, 1))[:3]
    mask_file, _ = module.deepgrow(study, "spleen", [volume.ijk(point)], [volume.ijk(wrong)])
    corrected = SlicerVolume.load(mask_file)
    assert (corrected.value_at(point), corrected.value_at(wrong)) == (1, 0)


def test_next_sample_until_nothing_is_left(module: SlicerModule) -> None:
    sample, path = module.next_sample()
    assert set(sample) >= {"id", "path", "name"}
    assert path.name == sample["name"]
    SlicerVolume.load(path)


def test_next_sample_on_another_machine(module: SlicerModule, slicer_server: Server) -> None:
    """The path is the server's, and does not exist here: the image is downloaded."""
    sample = module.call("POST", "/activelearning/first", {"client_id": "x"}).json
    image = module.call("GET", f"/datastore/image?image={sample['id'].replace(' ', '+')}")
    assert image.status == 200
    assert image.body == (slicer_server.studies / sample["name"]).read_bytes()


def test_a_volume_of_the_users_own(
    module: SlicerModule, phantom: Phantom, tmp_path: Path, slicer_server: Server
) -> None:
    own = tmp_path / "own.nii.gz"
    own.write_bytes(phantom.file.read_bytes())
    volume = SlicerVolume.load(own)
    session = module.create_session(own)
    point = (phantom.affine @ (*phantom.centre, 1))[:3]
    mask_file, _ = module.deepgrow("vtkMRMLScalarVolumeNode1", "spleen", [volume.ijk(point)], session_id=session)
    assert SlicerVolume.load(mask_file).value_at(point) == 1
    assert module.call("GET", f"/session/{session}").json["name"] == session

    # Submitted: the volume is uploaded first, then its label.
    assert module.upload_image(own, "own").json == {"image": "own"}
    saved = module.save_label("own", mask_file, NAMES[:1]).json
    assert saved == {"image": "own", "label": "own", "version": 1, "notice": None}
    reopened = SlicerVolume.load(module.reopen("own"))
    np.testing.assert_array_equal(reopened.voxels, SlicerVolume.load(mask_file).voxels)
    assert module.call("DELETE", f"/session/{session}").status == 200
    gone = module.call("GET", f"/session/{session}")
    assert (gone.status, "PUT /session/" in gone.json["detail"]) == (404, True)
    slicer_server.request("DELETE", "/datastore/", params={"id": "own"})


@pytest.mark.parametrize("study", ["LPS", "oblique"])
def test_a_label_as_nifti(module: SlicerModule, slicer_server: Server, phantom: Phantom, study: str) -> None:
    volume = SlicerVolume.load(slicer_server.studies / f"{study}.nii.gz")
    label = (phantom.label % 3).astype(np.uint8)
    image = sitk.GetImageFromArray(label.transpose(2, 1, 0))
    image.CopyInformation(sitk.ReadImage(str(slicer_server.studies / f"{study}.nii.gz")))
    file = module.folder / "tmp1.nii.gz"
    sitk.WriteImage(image, str(file))
    saved = module.save_label(study, file, NAMES).json
    assert (saved["image"], saved["label"]) == (study, study)
    reopened = SlicerVolume.load(module.reopen(study))
    np.testing.assert_array_equal(reopened.voxels, label)
    np.testing.assert_allclose(reopened.ijk_to_ras, volume.ijk_to_ras, atol=1e-4)
    info = slicer_server.json(f"/datastore/label/info?label={study}&tag=final")
    assert info["label_info"] == [{"name": "spleen", "idx": 1}, {"name": "left kidney", "idx": 2}]


def test_a_segmentation_as_seg_nrrd(module: SlicerModule, slicer_server: Server, phantom: Phantom) -> None:
    """Slicer writes the segments' bounding box only, in LPS, as one layer."""
    study = "LAS"
    volume = SlicerVolume.load(slicer_server.studies / f"{study}.nii.gz")
    label = phantom.tissue.astype(np.uint8)
    start = np.argwhere(label).min(axis=0)
    stop = np.argwhere(label).max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    header = {
        "type": "unsigned char",
        "dimension": 3,
        "space": "left-posterior-superior",
        "space directions": to_lps[:3, :3].T,
        "space origin": (to_lps @ (*start, 1))[:3],
        "kinds": ["domain", "domain", "domain"],
        "encoding": "gzip",
        "Segment0_ID": "Segment_1",
        "Segment0_Name": "spleen",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segmentation_MasterRepresentation": "Binary labelmap",
    }
    file = module.folder / "segmentation.seg.nrrd"
    nrrd.write(str(file), label[box], header)
    assert module.save_label(study, file, NAMES).status == 200
    reopened = SlicerVolume.load(module.reopen(study))
    np.testing.assert_array_equal(reopened.voxels, label)
    np.testing.assert_allclose(reopened.ijk_to_ras, volume.ijk_to_ras, atol=1e-4)


def test_without_a_training_the_module_is_told_so(module: SlicerModule) -> None:
    assert not module.is_training()
    status = module.call("GET", "/train/")
    stop = module.call("DELETE", "/train/")
    for answer in (status, stop):
        assert answer.status == 404
        assert answer.json["detail"]  # shown by the module as it is


def test_what_the_module_shows_of_a_refusal(module: SlicerModule, slicer_server: Server) -> None:
    params = json.dumps({"label": "spleen", "foreground": [[500, 0, 0]], "background": []})
    answer = module.call_multipart("POST", "/infer/deepgrow3d?image=LPS", {"params": params}, {})
    assert answer.status == 400
    assert "Click (500, 0, 0) lies outside" in answer.json["detail"]


# MONAI Label's client leaves its connections and files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_packages_client_takes_the_same_path(slicer_server: Server, phantom: Phantom, tmp_path: Path) -> None:
    client = MONAILabelClient(slicer_server.url + "/", str(tmp_path), "second-witness")
    assert client.auth_enabled() is False
    assert "deepgrow3d" in client.info()["models"]
    assert client.next_sample("random", {})["id"]
    own = tmp_path / "own.nii.gz"
    own.write_bytes(phantom.file.read_bytes())
    session = client.create_session(str(own))["session_id"]
    clicks = {"foreground": [phantom.centre], "background": [], "label": "spleen", "result_extension": ".nii.gz"}
    mask_file, params = client.infer("deepgrow3d", "", clicks, session_id=session)
    assert params["label_names"] == {"spleen": 1}
    mask = np.asarray(nib.Nifti1Image.from_filename(mask_file).dataobj)
    assert mask[tuple(phantom.centre)] == 1
    assert client.save_label("oblique", mask_file, params={"label_info": [{"name": "spleen", "idx": 1}]}) is not None
    downloaded = Path(client.download_label("oblique", "final")).read_bytes()
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(downloaded)).dataobj), mask)
    assert client.train_status(check_if_running=True) is False
    assert client.remove_session(session)["name"] == session


def test_a_volume_is_read_here_as_slicer_reads_it(slicer_server: Server) -> None:
    """The oracle of these tests itself: ITK and nibabel agree where voxels are."""
    for file in slicer_server.studies.glob("*.nii.gz"):
        ours = nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(file.read_bytes())))
        np.testing.assert_allclose(SlicerVolume.load(file).ijk_to_ras, ours.affine, atol=1e-3)
