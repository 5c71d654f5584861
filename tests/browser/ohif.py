"""OHIF in a real browser, used as a person does; its own objects are asked only where things are and what is shown."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Dialog, Page, Response, expect

AXIAL = "mpr-axial"

SHOW_SLICE_OF = """([viewportId, index]) => {
  const viewport = cornerstone.getRenderingEngines()[0].getViewport(viewportId);
  viewport.jumpToWorld(Array.from(viewport.getImageData().imageData.indexToWorld(index)));
  viewport.render();
}"""
PLACE_OF = """([viewportId, index]) => {
  const viewport = cornerstone.getRenderingEngines()[0].getViewport(viewportId);
  const [x, y] = viewport.worldToCanvas(Array.from(viewport.getImageData().imageData.indexToWorld(index)));
  const box = viewport.element.getBoundingClientRect();
  return [box.x + x, box.y + y];
}"""
POINTS = """() => cornerstoneTools.annotation.state.getAllAnnotations()
  .filter(one => one.metadata.toolName === 'ProbeMONAILabel').length"""
PROBE_IS_ACTIVE = """() => cornerstoneTools.ToolGroupManager.getAllToolGroups()
  .some(group => group.toolOptions.ProbeMONAILabel?.mode === 'Active')"""
IS_LOADED = """() => {
  const volume = cornerstone.cache.getVolumes().find(one => one.loadStatus);
  return Boolean(volume && volume.loadStatus.loaded);
}"""
LABELMAP = """() => {
  const labelmap = services.segmentationService.getLabelmapVolume('1');
  return [Array.from(labelmap.dimensions), Array.from(labelmap.voxelManager.getCompleteScalarDataArray())];
}"""
PAINT = """([start, stop, value]) => {
  const { dimensions: [width, height], voxelManager } = services.segmentationService.getLabelmapVolume('1');
  const values = Uint8Array.from(voxelManager.getCompleteScalarDataArray());
  for (let k = start[2]; k < stop[2]; k++)
    for (let j = start[1]; j < stop[1]; j++)
      for (let i = start[0]; i < stop[0]; i++) values[(k * height + j) * width + i] = value;
  voxelManager.setCompleteScalarDataArray(values);
  cornerstone.triggerEvent(cornerstone.eventTarget, cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED, {
    segmentationId: '1',
  });
}"""
VALUE_AT = """index =>
  services.segmentationService.getLabelmapVolume('1').voxelManager.getAtIJK(...index)"""
SHOWS = """name => {
  const { viewports, activeViewportId } = services.viewportGridService.getState();
  const [shown] = viewports.get(activeViewportId).displaySetInstanceUIDs;
  return services.displaySetService.getDisplaySetByUID(shown).SeriesDescription === name;
}"""
STRUCTURES = """() => Object.values(services.segmentationService.getSegmentations()[0].config.segments)
  .map(segment => [segment.label, segment.segmentIndex])"""


@dataclass
class Ohif:
    """One page with OHIF, served by the server at ``url``.

    Attributes:
        page: the browser's page.
        url: the server.
        elsewhere: requests that went to another host.
        faults: answers with a status of 400 or more, but for those that mean "none".
    """

    page: Page
    url: str
    elsewhere: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def open_study_list(self) -> None:
        """Go to the list, and close what covers it."""
        self.page.on("response", self._look_at)
        self.page.goto(f"{self.url}/ohif/")
        self.page.get_by_role("button", name="Confirm and Hide").click()

    def open_study(self, patient: str) -> None:
        """Open a study of the list in the mode MONAI Label, and wait until its voxels are there."""
        self.page.get_by_text(patient).first.click()
        self.page.get_by_text("MONAI Label", exact=True).first.click()
        self.wait_for_voxels()

    def open_studies(self, *study_uids: str) -> None:
        """Open several studies at once, in the mode MONAI Label."""
        query = "&".join(f"StudyInstanceUIDs={uid}" for uid in study_uids)
        self.page.goto(f"{self.url}/ohif/monai-label?{query}")
        self.wait_for_voxels()

    def show_series(self, name: str) -> None:
        """Show another series of the opened studies, by its thumbnail."""
        self.page.locator("[data-cy=study-browser-thumbnail]").filter(has_text=name).dblclick()
        self.page.wait_for_function(SHOWS, arg=name)
        self.wait_for_voxels()

    def wait_for_voxels(self) -> None:
        """Return when all slices are there."""
        self.page.wait_for_function("() => window.services && window.cornerstone")
        self.page.wait_for_function(IS_LOADED)

    def connect(self) -> None:
        """Connect the panel to the server that it proposes."""
        expect(self.page.locator("#monailabelServerURL")).to_have_value(f"{self.url}/")
        self.page.locator(".settingsTable button").click()
        self.page.locator(".tabs").wait_for()
        self.page.wait_for_function("() => services.segmentationService.getLabelmapVolume('1')")

    def point_prompts(self) -> None:
        """Open the tab where points are set."""
        self.page.locator("label.tab-label", has_text="Point Prompts").click()
        self.page.wait_for_function(f"() => ({PROBE_IS_ACTIVE})()")

    def choose(self, structure: str) -> None:
        """Choose whose points are set next."""
        self.page.locator("tr.clickable-row").get_by_text(structure, exact=True).click()

    def click_voxel(self, index: tuple[int, int, int]) -> None:
        """Click on a voxel (i, j, k) in the axial view, which is turned to its slice."""
        before = self.page.evaluate(POINTS)
        self.page.evaluate(SHOW_SLICE_OF, [AXIAL, list(index)])
        self.page.wait_for_timeout(500)  # frames are drawn meanwhile
        x, y = self.page.evaluate(PLACE_OF, [AXIAL, list(index)])
        self.page.mouse.move(x, y)
        self.page.mouse.click(x, y)
        self.page.wait_for_function(f"before => ({POINTS})() === before + 1", arg=before)

    def run(self) -> Response:
        """Press Run, and return the server's answer once it is shown."""
        with (
            self.page.expect_console_message(lambda told: "updated the segmentation" in told.text),
            self.page.expect_response(lambda answer: "/infer/" in answer.url) as answered,
        ):
            self.page.get_by_title("Run PointPrompts").click()
        return answered.value

    def press(self, button: str) -> str:
        """Press one of the server's buttons, and return what it tells."""
        self.page.get_by_role("button", name=button, exact=True).click()
        told = self.page.locator("#deepgrow3d-told")
        expect(told).not_to_have_text(f"{button} ...", timeout=30_000)
        return told.inner_text()

    def answer(self, button: str, *, accept: bool) -> str:
        """Press a button that asks, answer, and return what it tells."""
        asked: list[str] = []

        def reply(dialog: Dialog) -> None:
            asked.append(dialog.message)
            if accept:
                dialog.accept()
            else:
                dialog.dismiss()

        self.page.once("dialog", reply)
        told = self.press(button)
        assert len(asked) == 1, f"{button} did not ask"
        return told

    def paint(self, structure: str, start: tuple[int, int, int], stop: tuple[int, int, int]) -> None:
        """Fill a box of voxels, in the way the panel shows the answer to Run; takes no network."""
        self.page.evaluate(PAINT, [list(start), list(stop), self.structures()[structure]])

    def structure_at(self, index: tuple[int, int, int]) -> str:
        """What the overlay shows at a voxel; "" for nothing."""
        value = self.page.evaluate(VALUE_AT, list(index))
        return next((name for name, known in self.structures().items() if known == value), "")

    def labelmap(self) -> npt.NDArray[np.uint8]:
        """What the overlay shows, (i, j, k)."""
        shape, values = self.page.evaluate(LABELMAP)
        return np.array(values, np.uint8).reshape(shape, order="F")

    def structures(self) -> dict[str, int]:
        """The overlay's values, by name."""
        return dict(self.page.evaluate(STRUCTURES))

    def picture(self, file: Path) -> None:
        """Keep what is seen."""
        self.page.screenshot(path=file)

    def pixels_at(self, index: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        """(9, 9, 3) pixels of the screen around a voxel of the slice that is shown."""
        x, y = self.page.evaluate(PLACE_OF, [AXIAL, list(index)])
        clip: Any = {"x": x - 4, "y": y - 4, "width": 9, "height": 9}
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB"))

    def _look_at(self, response: Response) -> None:
        if not response.url.startswith((self.url, "blob:", "data:")):
            self.elsewhere.append(response.url)
        means_none = "/train/" in response.url or (response.status == 404 and "/datastore/label/info" in response.url)
        if response.status >= 400 and not means_none:
            self.faults.append(f"{response.status} {response.url}")
