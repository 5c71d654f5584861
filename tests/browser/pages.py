"""The server's own pages in a real browser, used as a person does."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page, Request

PAINTED = "() => Array.from(deepgrow3d.painted())"
SHAPE = "() => deepgrow3d.viewer.shape"
HAS_TOLD = """() => {
  const told = document.getElementById('told');
  return told && told.textContent && told.className !== 'busy' && globalThis.deepgrow3d;
}"""
PLACE_OF = "index => deepgrow3d.viewer.show(index)"


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

    def click_voxel(self, index: tuple[int, int, int], *, button: str = "left") -> str:
        """Click a voxel (i, j, k) of the stored image in the axial slice, and return what the page tells."""
        place = self.page.evaluate(PLACE_OF, list(index))
        self.page.wait_for_timeout(200)  # the slice is drawn meanwhile
        with self.page.expect_response(lambda answer: "/infer/" in answer.url):
            self.page.mouse.click(place["x"], place["y"], button=button)  # type: ignore[arg-type]
        return self.wait()

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
