"""Debian's Chromium without a window, and servers for it to talk to."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.pages import TryIt
from tests.integration.conftest import launcher, phantom, reference
from tests.integration.launcher import Launcher, Server
from tests.integration.phantom import Phantom, nifti

__all__ = ["launcher", "phantom", "reference"]

WITHOUT_A_GPU = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]

FOREIGN = {"int16": (np.int16, ".nii.gz"), "plain": (np.uint8, ".nii"), "float": (np.float32, ".nii")}
STUDIES = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "shared",
    "twice",
    "away",
    "left",
    "outdated",
    "replaced",
    "undone",
    "displaced",
    *FOREIGN,
)


def required_program(name: str, package: str) -> str:
    """Where a program is. Without it tests are passed over on a person's machine, and fail in CI."""
    program = shutil.which(name)
    if program is None:
        told = f"{name} is not installed (Debian: apt install {package})"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return program


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Ends with its module: while Playwright runs, nothing else in this thread can use asyncio."""
    program = required_program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=WITHOUT_A_GPU)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser_page(chromium: Browser) -> Iterator[Page]:
    """A page with no history."""
    context = chromium.new_context(viewport={"width": 1500, "height": 950})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """Copies of a phantom; some have a final label of another program, one of them on another grid."""
    folder = tmp_path_factory.mktemp("drawing") / "files"
    final = folder / "studies" / "labels" / "final"
    final.mkdir(parents=True)
    for name in STUDIES:
        (folder / "studies" / f"{name}.nii.gz").write_bytes(phantom.file.read_bytes())
    for name, (dtype, extension) in FOREIGN.items():
        nib.Nifti1Image(phantom.label.astype(dtype), phantom.affine).to_filename(final / f"{name}{extension}")
    (final / "displaced.nii.gz").write_bytes(nifti(phantom.label[1:], phantom.affine))
    launcher = Launcher(folder)
    try:
        yield launcher.serve(folder / "studies")
    finally:
        launcher.end_all()


@pytest.fixture
def tried(chromium: Browser, server: Server) -> Iterator[TryIt]:
    """The page with the viewer, whose questions are all answered with yes."""
    context = chromium.new_context(viewport={"width": 1100, "height": 700})
    context.set_default_timeout(60_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    yield TryIt(page, server.url)
    assert faults == []
    context.close()


@pytest.fixture(scope="module")
def ohif_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What ``make ohif`` starts: Orthanc with the samples, and the server in front of it."""
    required_program("Orthanc", "orthanc orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("ohif") / "files"
    folder.mkdir()
    starter = Launcher(folder)
    try:
        server = starter.start_command(folder / "demo", "ohif", "--folder", str(folder / "demo"))
        yield server
        assert server.process.poll() is None, f"The server ended by itself.\n{server.log.read_text()}"
        assert server.stop() in (0, 128 + signal.SIGTERM, -signal.SIGTERM), server.log.read_text()
    finally:
        starter.end_all()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go; `DEEPGROW3D_PICTURES` names another folder."""
    folder = Path(os.environ.get("DEEPGROW3D_PICTURES", "runs/browser"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
