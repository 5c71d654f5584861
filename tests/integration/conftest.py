"""A real server: a process of its own, real HTTP, an empty home folder, and files that only it writes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from deepgrow3d_app.cases.prepared_case import write_prepared_case
from deepgrow3d_app.cases.prepared_manifest import PreparedEntry, PreparedManifest
from deepgrow3d_app.serving.compatibility import prepare_imports
from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Volume
from tests.integration.bad_input import CLICKS, Files
from tests.integration.dicomweb import Series
from tests.integration.launcher import Launcher, Server
from tests.integration.phantom import Phantom, Reference, nifti
from tests.integration.training import STRUCTURES, generated_case

ROOT = Path(__file__).parents[2]

SERIES = (
    *("oblique", "axial", "reversed", "rle"),
    *("saved thrice", "kept", "unseen", "stored by a viewer", "never labelled"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each operation's test an id of its own: of tests with one id, those that run side by side keep the last."""
    for item in items:
        operation = getattr(item, "operation_label", None)  # schemathesis has it in the name only
        if operation is not None:
            item._id = dataclasses.replace(item._id, params=operation)
    repeated = [nodeid for nodeid, count in Counter(item.nodeid for item in items).items() if count > 1]
    if repeated:
        raise pytest.UsageError(f"Several tests have the same id: {', '.join(repeated)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of every server that a failed test talked to."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            servers = value.servers if isinstance(value, Launcher) else [value] if isinstance(value, Server) else []
            for server in servers:
                report.sections.append((f"the log of {server.url}", server.log.read_text(errors="replace")[-3000:]))
    return report


@pytest.fixture(scope="session")
def reference() -> Reference:
    folder = ROOT / "sample-data" / "reference" / "ct-trunk"
    image = nib.Nifti1Image.from_filename(folder / "labels.nii.gz")
    structures = json.loads((folder / "structures.json").read_text())["structures"]
    values = {name: structure["value"] for name, structure in structures.items()}
    return Reference(np.asarray(image.dataobj), values, image.affine)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    shape = (30, 36, 22)
    a, b = np.deg2rad((20.0, -35.0))
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag((-3.0, 2.5, 5.0))
    affine[:3, 3] = (-120.25, 33.5, 900.125)
    generator = np.random.default_rng(0)
    i, j, k = np.ogrid[tuple(slice(0, n) for n in shape)]
    tissue = ((i - 13) / 8) ** 2 + ((j - 20) / 10) ** 2 + ((k - 10) / 5) ** 2 <= 1
    voxels = np.where(tissue, 60, -100) + generator.normal(0, 15, shape)
    voxels[:2] = -1000
    label = generator.integers(0, 5, shape).astype(np.uint8)
    file = tmp_path_factory.mktemp("phantom") / "phantom.nii.gz"
    file.write_bytes(nifti(voxels.astype(np.int16), affine))
    return Phantom(file, tissue, affine, label)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """The server of the whole run, on a copy of the sample studies.

    With them lie ``labelled``, which has a final label, and what users put into such folders too:
    ``truncated`` and ``four-dimensional``. Its weights are a copy, so that no test can lose the shipped ones.
    """
    folder = tmp_path_factory.mktemp("server") / "files"
    studies = folder / "studies"
    shutil.copytree(ROOT / "sample-data" / "studies", studies)
    (studies / "truncated.nii.gz").write_bytes((studies / "ct-trunk.nii.gz").read_bytes()[:100_000])
    (studies / "four-dimensional.nii.gz").write_bytes(nifti(np.zeros((4, 5, 6, 2), np.int16), np.eye(4)))
    shutil.copy(phantom.file, studies / "labelled.nii.gz")
    (studies / "labels" / "final").mkdir(parents=True)
    (studies / "labels" / "final" / "labelled.nii.gz").write_bytes(phantom.label_file)
    checkpoint = folder / "model" / "served.safetensors"
    checkpoint.parent.mkdir()
    shutil.copy(ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors", checkpoint)
    launcher = Launcher(folder)
    try:
        server = launcher.serve(studies, "--checkpoint", str(checkpoint))
        server.wait_until_openvino_computes()
        yield server
        assert server.process.poll() is None, f"The server ended by itself.\n{server.log.read_text()}"
        assert server.stop() in (0, -signal.SIGTERM), server.log.read_text()
        # Matplotlib, which MONAI imports, caches its list of fonts.
        in_home = {path.name for path in (folder / "home").glob("*/*")}
        assert in_home <= {"matplotlib"}, "The server wrote into the home folder."
        assert list((folder / "tmp").iterdir()) == [], "The server left temporary files."
    finally:
        launcher.end_all()


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """For tests that need commands or servers of their own.

    These compute with PyTorch: converting the network for OpenVINO keeps a core busy for seconds in each new folder.
    Tests of what the default engine does set it back to ``auto``.
    """
    folder = tmp_path / "files"
    folder.mkdir()
    launcher = Launcher(folder, settings={"DEEPGROW3D_ENGINE": "torch"})
    yield launcher
    launcher.end_all()


@pytest.fixture(scope="module")
def files(server: Server) -> Files:
    for image in server.json("/datastore/?output=all")["objects"]:
        server.infer(CLICKS, image=image)  # what is decoded for the first time is kept on disk
    files = Files((server.folder, ROOT / "apps"))
    files.known = files.fingerprint()
    return files


@pytest.fixture
def nothing_is_written(server: Server, files: Files) -> Iterator[None]:
    """Around every test: the same files with the same content after it, and a server that still answers."""
    before = files.known
    yield
    files.known = files.fingerprint()
    changed = sorted(
        path for path in before.keys() | files.known.keys() if before.get(path, "") != files.known.get(path, "")
    )
    assert changed == []
    assert server.json("/info/")["datastore"]["total"] == 4


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Any:
    """MONAI Label's own client."""
    prepare_imports()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports cgi
        from monailabel.client import MONAILabelClient
    return MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="annotator")


@pytest.fixture
def one_core_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums come in one order: losses of two runs can be compared."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def cases(launcher: Launcher) -> str:
    """Four generated CTs, prepared, one of them for validation."""
    folder = launcher.folder / "cases"
    entries = []
    for number in range(4):
        case = generated_case(f"case{number}", (40, 36, 32), 3.0, number)
        path = folder / "cases" / case.name
        path.mkdir(parents=True)
        write_prepared_case(case, path, "", ())
        split = "validation" if number == 3 else "training"
        entries.append(PreparedEntry(case.name, case.name, split, f"cases/{case.name}"))  # type: ignore[arg-type]
    PreparedManifest(None, STRUCTURES, tuple(entries), STRUCTURES).write(folder)
    return "cases"


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Mapping[str, tuple[Series, list[Path]]]:
    """Of the phantom: ``oblique`` as it lies, ``axial``, ``reversed``, whose files count from the head, and more."""
    folder = tmp_path_factory.mktemp("series")
    oblique = read_volume(phantom.file)
    axial = Volume(oblique.array, np.diag([-3.0, -2.5, 5.0, 1.0]))
    made = {}
    for name in SERIES:
        volume = oblique if name in ("oblique", "kept", "unseen") else axial
        files = write_dicom_series(volume, folder / name, Examination(name, f"Phantom^{name}", "phantoms", name))
        for number, file in enumerate(reversed(files), start=1):
            header = pydicom.dcmread(file)
            if name == "reversed":
                header.InstanceNumber = number
                header.save_as(folder / name / f"r{number:03d}.dcm")
                file.unlink()
            if name == "rle":
                header.compress(RLELossless, generate_instance_uid=False)
                header.save_as(file)
        written = read_volume(folder / name)
        label = np.zeros(written.shape, np.uint8)
        for index in np.ndindex(*phantom.label.shape):  # by its place in the world, on whatever axes
            place = np.linalg.inv(written.affine) @ volume.affine @ (*index, 1)
            label[tuple(place[:3].round().astype(int))] = phantom.label[index]
        tissue = written.array * written.slope + written.intercept > 10
        files = sorted((folder / name).iterdir())
        uid = str(pydicom.dcmread(files[0]).SeriesInstanceUID)
        made[name] = (Series(uid, written, tissue, label), files)
    return made
