"""The server's own pages in a real browser, used as a person does."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Locator, Page, Request, Route

from tests.integration.launcher import Server

INSIDE = (13, 20, 10)
BESIDE = (13, 24, 10)

PAINTED = "() => Array.from(deepgrow3d.painted())"
SHAPE = "() => deepgrow3d.viewer.shape"
HAS_TOLD = """() => {
  const told = document.getElementById('told');
  return told && told.textContent && told.className !== 'busy' && globalThis.deepgrow3d;
}"""
CLICKS_OF = "name => deepgrow3d.structures().find(one => one.name === name).clicks.map(click => click.index)"
TILES = """() => {
  const box = document.getElementById('canvas').getBoundingClientRect();
  const { screenSlices, uiData } = deepgrow3d.viewer.niivue;
  return screenSlices.map(({ leftTopWidthHeight }) => {
    const [left, top, width, height] = leftTopWidthHeight.map(place => place / uiData.dpr);
    return [box.x + left, box.y + top, width, height];
  });
}"""
SHOW_GREY = """white => {
  deepgrow3d.viewer.contrast = [0, white];
  deepgrow3d.viewer.niivue.setCrosshairColor([0, 0, 0, 0]);
}"""
PLACE_OF = "index => deepgrow3d.viewer.show(index)"


@dataclass
class Held:
    """Requests that wait.

    Attributes:
        routes: the requests, in the order they were made.
        is_over: whether further ones go on at once.
    """

    routes: list[Route] = field(default_factory=list)
    is_over: bool = False

    def take(self, route: Route) -> None:
        """A request was made."""
        if self.is_over:
            route.continue_()
        else:
            self.routes.append(route)

    def wait_for(self, page: Page, count: int) -> None:
        """Return when so many were made."""
        for _ in range(100):
            if len(self.routes) >= count:
                return
            page.wait_for_timeout(50)
        raise AssertionError(f"{len(self.routes)} requests were made, not {count}.")

    def release(self) -> None:
        """Let all of them go on, in their order."""
        self.is_over = True
        for route in self.routes:
            route.continue_()
        self.routes.clear()


@dataclass
class TryIt:
    """The page with the viewer.

    Attributes:
        page: the browser's page.
        url: the server.
        elsewhere: requests that went to another host.
    """

    page: Page
    url: str
    elsewhere: list[str] = field(default_factory=list)

    def go_to(self, study: str) -> None:
        """Straight to a study."""
        self.page.goto(f"{self.url}/try?study={study}")
        self.wait()

    def start(self) -> None:
        """From the start page, as a newcomer."""
        self.page.on("request", self._look_at)
        self.page.goto(self.url)
        self.page.get_by_role("link", name="Click here to try it").click()
        self.wait()

    def open(self, study: str) -> None:
        """Choose another study."""
        self.page.get_by_label("Study").select_option(study)
        self.wait()

    def wait(self) -> str:
        """What the page tells once it is done."""
        self.page.wait_for_function(HAS_TOLD)
        return self.page.locator("#told").inner_text()

    def choose(self, structure: str) -> None:
        """Choose a structure."""
        self.page.get_by_role("listbox", name="Structures").get_by_text(structure, exact=True).click()

    def click_voxel(self, index: tuple[int, int, int], *, button: Literal["left", "right"] = "left") -> str:
        """Click a voxel (i, j, k) of the stored image in the axial slice, and return what the page tells."""
        x, y = self.place_of(index)
        with self.page.expect_response(lambda answer: "/infer/" in answer.url):
            self.page.mouse.click(x, y, button=button)
        return self.wait()

    def place_of(self, index: tuple[int, int, int]) -> tuple[float, float]:
        """Where a voxel is on the page, once its slice is drawn."""
        place = self.page.evaluate(PLACE_OF, list(index))
        self.page.wait_for_timeout(200)
        return place["x"], place["y"]

    def crosshair_at(self, index: Sequence[int]) -> list[float]:
        """Where the slices cross, from 0 to 1 along each axis, after they were turned to a voxel."""
        self.page.evaluate("index => deepgrow3d.viewer.turnTo(index)", list(index))
        return self.crosshair()

    def crosshair(self) -> list[float]:
        """Where the slices cross."""
        place: list[float] = self.page.evaluate("() => deepgrow3d.viewer.crosshair")
        return place

    def click_at(self, place: tuple[float, float]) -> None:
        """Click there, and wait for nothing."""
        self.page.mouse.click(*place)

    def tiles(self) -> list[list[float]]:
        """Where the three slices are on the page: left, top, width, height."""
        places: list[list[float]] = self.page.evaluate(TILES)
        return places

    def show_grey(self, white: float) -> None:
        """Show values from 0 to ``white`` from black to white, and nothing over them."""
        self.page.evaluate(SHOW_GREY, white)
        self.page.wait_for_timeout(200)

    def grey_at(self, x: int, y: int) -> float:
        """How bright a pixel of the screen is."""
        clip: Any = {"x": x, "y": y, "width": 1, "height": 1}
        return float(np.asarray(Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("L")).mean())

    def clicks(self, structure: str = "spleen") -> list[list[int]]:
        """The voxels that a structure's mask was computed from."""
        voxels: list[list[int]] = self.page.evaluate(CLICKS_OF, structure)
        return voxels

    def held(self, urls: str) -> Held:
        """From now on requests to `urls` wait."""
        held = Held()
        self.page.route(urls, held.take)
        return held

    def saves(self) -> list[str]:
        """Filled with the studies that labels are sent for, from now on."""
        studies: list[str] = []

        def look_at(request: Request) -> None:
            if request.method == "PUT":
                studies.append(request.url.partition("image=")[2].partition("&")[0])

        self.page.on("request", look_at)
        return studies

    def save_button(self) -> Locator:
        """What saves."""
        return self.page.get_by_role("button", name="Save", exact=True)

    def press(self, button: str) -> str:
        """Press a button, and return what the page tells."""
        self.page.get_by_role("button", name=button, exact=True).click()
        return self.wait()

    def painted(self) -> npt.NDArray[np.uint8]:
        """The label map that is shown, (i, j, k) of the stored image."""
        shape = self.page.evaluate(SHAPE)
        return np.array(self.page.evaluate(PAINTED), np.uint8).reshape(shape, order="F")

    def _look_at(self, request: Request) -> None:
        if not request.url.startswith((self.url, "blob:", "data:")):
            self.elsewhere.append(request.url)


def notes(page: Page) -> Locator:
    """What the page tells until it is dealt with."""
    return page.get_by_role("alert")


def versions(server: Server, study: str) -> list[dict[str, Any]]:
    """All versions of a study's label."""
    listed: list[dict[str, Any]] = server.json(f"/datastore/label/versions?label={study}")
    return listed


def infer_requests(page: Page) -> list[dict[str, Any]]:
    """Filled with what clicks ask for, from now on."""
    asked: list[dict[str, Any]] = []

    def look_at(request: Request) -> None:
        if "/infer/" in request.url:
            body = request.post_data or ""
            asked.append(json.loads(body[body.index("{") : body.rindex("}") + 1]))

    page.on("request", look_at)
    return asked
