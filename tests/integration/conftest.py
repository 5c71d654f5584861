"""A real server: a process of its own, real HTTP, an empty home folder, and files that only it writes."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import requests

ROOT = Path(__file__).parents[2]
START_S = 120
STOP_S = 30
ANSWER_S = 120

LOGS = ("clicks", "audit")

Voxel = Sequence[int]
Files = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A running server, and how tests talk to it.

    Attributes:
        url: where it listens, with the prefix of its paths.
        folder: holds everything it may write to, and is its working folder.
        studies: the folder it serves, in ``folder``.
        log: what it prints, outside of ``folder``.
        process: the process, leader of a process group of its own.
        certificate: of a server that speaks TLS.
    """

    url: str
    folder: Path
    studies: Path
    log: Path
    process: subprocess.Popen[bytes]
    certificate: Path | None = None

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """One HTTP request over a connection of its own."""
        verify = True if self.certificate is None else str(self.certificate)
        return requests.request(method, self.url + path, timeout=ANSWER_S, verify=verify, **kwargs)

    def json(self, path: str) -> Any:
        """The JSON at ``path``."""
        response = self.request("GET", path)
        assert response.ok, response.text
        return response.json()

    def infer(
        self, params: object, files: Files | None = None, model: str = "deepgrow3d", **query: str
    ) -> requests.Response:
        """``POST /infer`` with ``params`` as JSON, or as they are where they are text."""
        text = params if isinstance(params, str) else json.dumps(params)
        return self.request("POST", f"/infer/{model}", params=query, files={"params": (None, text), **(files or {})})

    def mask(
        self, image: str, foreground: Sequence[Voxel], background: Sequence[Voxel] = (), **params: str
    ) -> npt.NDArray[np.uint8]:
        """The mask of all these clicks, (i, j, k)."""
        clicks = {"foreground": foreground, "background": background, "result_extension": ".nii.gz"}
        response = self.infer({**clicks, **params}, image=image, output="image")
        assert response.ok, response.text
        return voxels_of(response.content)

    def save_label(
        self, image: str, name: str, content: bytes, *, names: Mapping[int, str] | None = None, **query: str
    ) -> requests.Response:
        """``PUT /datastore/label``, in the form viewers use."""
        default = {1: "liver"} | {value: f"part {value}" for value in range(2, 13)}
        info = [{"name": text, "idx": value} for value, text in (names or default).items()]
        params = json.dumps({"label_info": info, "model": "deepgrow3d"})
        files = {"label": (name, content), "params": (None, params)}
        return self.request("PUT", "/datastore/label", params={"image": image, **query}, files=files)

    def files(self) -> set[Path]:
        """All that lies in its folder, but for the logs of clicks and of requests, which are meant to stay."""
        return {
            path
            for path in self.folder.rglob("*")
            if not path.as_posix().partition("/.deepgrow3d/")[2].startswith(LOGS)
        }

    def stop(self) -> int:
        """End it as an operator does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it as a lack of memory does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def wait_until_openvino_computes(self) -> None:
        """Return when the network is converted: the masks of two engines are not the same to the last voxel."""
        deadline = time.monotonic() + START_S
        while "OpenVINO" not in self.json("/info/")["models"]["deepgrow3d"]["devices"][0]:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def wait_until_it_answers(self) -> None:
        """Return when it does; fails when the process ends before that."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                if self.request("GET", "/health/live").ok:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(0.1)
                pytest.fail(f"The server ended with status {status}.\n{self.log.read_text()}")
        pytest.fail(f"The server does not answer after {START_S} s.\n{self.log.read_text()}")


@dataclass(frozen=True, slots=True, eq=False)
class Launcher:
    """Starts servers and other commands in ``folder``, in an environment where nothing but ``settings`` is set up."""

    folder: Path
    servers: list[Server] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def serve(self, studies: Path, *options: str, certificate: Path | None = None) -> Server:
        """``deepgrow3d serve`` on ``studies``, once it answers."""
        return self._start(studies, [*DEEPGROW3D, "serve", "--studies", str(studies), *options], certificate)

    def start_command(self, studies: Path, *words: str) -> Server:
        """``deepgrow3d`` with ``words``, a command that serves, once it answers."""
        return self._start(studies, [*DEEPGROW3D, *words])

    def start_server(self, studies: Path, app: str, *options: str) -> Server:
        """``monailabel start_server`` on ``studies``, once it answers."""
        command = ["monailabel", "start_server", "--app", app, "--studies", str(studies), *options]
        return self._start(
            studies, [*command, "--uvicorn_app", "deepgrow3d_app.serving.server:app", "--host", "127.0.0.1"]
        )

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """``command``, to its end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=START_S,
        )

    def deepgrow3d(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``deepgrow3d`` with ``arguments``, to its end."""
        return self.run([*DEEPGROW3D, *arguments])

    def end_all(self) -> None:
        """Leave no process behind."""
        for server in self.servers:
            if server.process.poll() is None:
                server.kill()

    def _start(self, studies: Path, command: Sequence[str], certificate: Path | None = None) -> Server:
        port = free_port()
        log = self.folder.with_name(f"{self.folder.name}-{len(self.servers)}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        scheme = "http" if certificate is None else "https"
        prefix = self.settings.get("MONAI_LABEL_API_STR", "")
        server = Server(f"{scheme}://127.0.0.1:{port}{prefix}", self.folder, studies, log, process, certificate)
        self.servers.append(server)
        server.wait_until_it_answers()
        return server

    def _environment(self) -> dict[str, str]:
        """This one's, without what a user of another home folder would not have."""
        for name in ("home", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        foreign = ("MONAI", "DEEPGROW3D_", "XDG_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {
            **kept,
            **self.settings,
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
        }


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A small generated CT: an ellipsoid of soft tissue in fat, on an oblique, anisotropic grid.

    Attributes:
        file: the image, .nii.gz.
        tissue: bool (i, j, k), the ellipsoid.
        affine: (4, 4), voxel index to mm in RAS+ world coordinates.
        label: uint8 (i, j, k), values 0 to 4 without any symmetry.
    """

    file: Path
    tissue: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    label: npt.NDArray[np.uint8]

    @property
    def centre(self) -> list[int]:
        """A voxel inside the ellipsoid."""
        return [round(float(indices.mean())) for indices in np.nonzero(self.tissue)]

    @property
    def label_file(self) -> bytes:
        """``label`` on the grid of the image, .nii.gz."""
        return nifti(self.label, self.affine)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The labels that belong to the study ``ct-trunk``.

    Attributes:
        labels: (i, j, k), a value for each structure.
        values: the value of each structure.
        affine: (4, 4), voxel index to mm in RAS+ world coordinates.
    """

    labels: npt.NDArray[np.uint8]
    values: Mapping[str, int]
    affine: npt.NDArray[np.float64]

    def structure(self, name: str) -> npt.NDArray[np.bool_]:
        """One structure, (i, j, k)."""
        return self.labels == self.values[name]


DEEPGROW3D = (sys.executable, "-m", "deepgrow3d_app")


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def nifti(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """The bytes of a .nii.gz file: the same ones for the same voxels."""
    return gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 1, mtime=0)


def voxels_of(content: bytes) -> npt.NDArray[Any]:
    """The voxels of a .nii.gz file."""
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)


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
