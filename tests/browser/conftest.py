"""Debian's Chromium without a window, and servers for it to talk to."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.conftest import Launcher, Server, launcher, phantom, reference

__all__ = ["launcher", "phantom", "reference"]

WITHOUT_A_GPU = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


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
