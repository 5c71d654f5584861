"""From `/` to a painted spleen, and what else the pages are for."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from scipy import ndimage

from tests.browser.pages import TryIt
from tests.integration.conftest import ROOT
from tests.integration.launcher import Launcher, Server
from tests.integration.phantom import Phantom, Reference, nifti, voxels_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RAMP_SHAPE = (40, 32, 24)
RAMP_STEP = 10
RAMP_AXES = ("RAS", "PIR", "LPS")
"""Stored axes: of the first, in the order that is shown, of the second in none of it, of the third mirrored."""

ORIENTATIONS = {"RAS": (1, 1, 1), "LPS": (-1, -1, 1), "LAS": (-1, 1, 1)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """The sample CT, and a phantom in several orientations."""
    folder = tmp_path_factory.mktemp("pages") / "files"
    studies = folder / "studies"
    shutil.copytree(ROOT / "sample-data" / "studies", studies)
    shutil.copy(phantom.file, studies / "oblique.nii.gz")
    voxels = voxels_of(phantom.file.read_bytes())
    for name, signs in ORIENTATIONS.items():
        (studies / f"{name}.nii.gz").write_bytes(nifti(voxels, np.diag([*np.multiply(signs, (3.0, 2.5, 5.0)), 1.0])))
    for axes in RAMP_AXES:
        for axis in range(3):
            nib.save(ramp(axes, axis), studies / f"ramp-{axes}-{axis}.nii.gz")
    forms = nib.Nifti1Image(np.asarray(ramp("RAS", 0).dataobj), None)
    forms.set_qform(np.diag([3.0, 2.5, 5.0, 1.0]), 1)
    forms.set_sform(np.diag([-3.0, 2.5, 5.0, 1.0]), 2)
    nib.save(forms, studies / "two-forms.nii.gz")
    launcher = Launcher(folder)
    try:
        yield launcher.serve(studies)
    finally:
        launcher.end_all()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A laptop's screen, and no history."""
    context = chromium.new_context(viewport={"width": 1366, "height": 768})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def tried(page: Page, server: Server) -> Iterator[TryIt]:
    viewer = TryIt(page, server.url)
    viewer.start()
    yield viewer
    assert viewer.elsewhere == []


def test_from_the_start_page_to_a_saved_spleen(
    tried: TryIt, server: Server, reference: Reference, pictures: Path
) -> None:
    started = time.monotonic()
    tried.open("ct-trunk")
    spleen, liver = reference.structure("spleen"), reference.structure("liver")
    inside = deepest(spleen)
    assert tried.click_voxel(inside).startswith("spleen: 1 click, ")
    first = tried.painted()
    assert first[inside] == 1
    assert dice(first == 1, spleen) > 0.7
    tried.page.screenshot(path=pictures / "try-it.png")
    (pictures / "painted.json").write_text(json.dumps({"seconds": round(time.monotonic() - started, 1)}))

    # A right click takes its voxel away; undo brings back what was there, exactly.
    unwanted = voxel_of(first == 1, inside[2])
    assert tried.click_voxel(unwanted, button="right").startswith("spleen: 2 clicks, ")
    assert tried.painted()[unwanted] == 0
    tried.press("Undo")
    np.testing.assert_array_equal(tried.painted(), first)

    # Another structure leaves the first one.
    tried.choose("liver")
    tried.click_voxel(deepest(liver))
    both = tried.painted()
    np.testing.assert_array_equal(both == 1, first == 1)
    assert dice(both == 6, liver) > 0.5

    # What is saved is what is shown, and is there again after a reload.
    assert tried.press("Save") == "Saved: spleen, liver."
    answer = server.request("GET", "/datastore/label", params={"label": "ct-trunk", "tag": "final"})
    np.testing.assert_array_equal(voxels_of(answer.content), both)
    tried.page.reload()
    tried.open("ct-trunk")
    np.testing.assert_array_equal(tried.painted(), both)
    assert tried.page.get_by_label("Study").locator("option:checked").inner_text() == "✓ ct-trunk"


@pytest.mark.parametrize("study", ["oblique", *ORIENTATIONS])
def test_what_is_painted_lies_where_the_image_has_its_tissue(tried: TryIt, phantom: Phantom, study: str) -> None:
    tried.open(study)
    tried.click_voxel((phantom.centre[0], phantom.centre[1], phantom.centre[2]))
    assert dice(tried.painted() == 1, phantom.tissue) > 0.5
    shown = np.array(tried.page.evaluate("() => Array.from(deepgrow3d.viewer.niivue.drawBitmap)"), np.uint8)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(tried.painted(), affine_of(study, phantom)))
    drawn = shown.reshape(canonical.shape, order="F")
    np.testing.assert_array_equal(drawn == 1, (np.asarray(canonical.dataobj) == 1) & (drawn < 253))


@pytest.mark.parametrize("axes", RAMP_AXES)
@pytest.mark.parametrize("axis", range(3))
def test_a_click_is_the_voxel_whose_pixel_is_pointed_at(page: Page, server: Server, axes: str, axis: int) -> None:
    """The pixel's grey tells the place along one axis of the stored image; what is sent has to be there, too."""
    sent: list[list[int]] = []

    def take(route: Route) -> None:
        body = route.request.post_data or ""
        sent.extend(json.loads(body[body.index("{") : body.rindex("}") + 1])["foreground"])
        route.fulfill(status=500, json={"detail": "Not of interest here."})

    page.route("**/infer/**", take)
    tried = TryIt(page, server.url)
    tried.go_to(f"ramp-{axes}-{axis}")
    extent = ramp(axes, axis).shape[axis]
    tried.show_grey(RAMP_STEP * extent)
    tiles = tried.tiles()
    assert len(tiles) == 3
    for left, top, width, height in tiles:
        for across, down in ((0.3, 0.4), (0.55, 0.7), (0.8, 0.25)):
            x, y = round(left + width * across), round(top + height * down)
            seen = tried.grey_at(x, y) / 255 * extent
            tried.click_at((x, y))
            page.wait_for_timeout(150)
            (clicked,) = sent
            sent.clear()
            assert clicked[axis] == pytest.approx(seen, abs=0.9)  # voxels, and half a pixel


def test_left_and_right_are_those_of_the_server(page: Page, server: Server) -> None:
    """A header may have two forms that contradict each other; the server's reading is the one that is trained on."""
    tried = TryIt(page, server.url)
    tried.go_to("two-forms")
    tried.show_grey(RAMP_STEP * RAMP_SHAPE[0])
    assert server.json("/datastore/image/geometry?image=two-forms")["affine"][0][0] == 3.0  # i grows to the right
    seen = [
        [tried.grey_at(round(left + width * across), round(top + height * 0.4)) for across in (0.2, 0.8)]
        for left, top, width, height in tried.tiles()
    ]
    # The patient's right, where voxels are bright, is on the left of an axial and of a coronal slice.
    assert sorted(right_side > left_side for right_side, left_side in seen) == [False, True, True]


def test_the_page_turns_to_where_the_network_is_least_sure(tried: TryIt, phantom: Phantom) -> None:
    tried.open("RAS")
    unsure = tried.page.get_by_role("button", name="Unsure")
    expect(unsure).to_be_disabled()
    with tried.page.expect_response(lambda answer: "/infer/" in answer.url) as answered:
        tried.click_voxel((phantom.centre[0], phantom.centre[1], phantom.centre[2]))
    index = answered.value.json()["params"]["suggestion"]["index"]
    tried.page.keyboard.press("n")
    shown = tried.page.evaluate("() => Array.from(deepgrow3d.viewer.niivue.frac2vox(deepgrow3d.viewer.crosshair))")
    assert shown == index
    tried.press("Undo")
    expect(unsure).to_be_disabled()


def test_who_saves_second_is_told(tried: TryIt, page: Page, server: Server, phantom: Phantom) -> None:
    inside = (phantom.centre[0], phantom.centre[1], phantom.centre[2])
    tried.open("LAS")
    tried.click_voxel(inside)
    assert tried.press("Save") == "Saved: spleen."
    assert page.context.browser is not None
    other = TryIt(page.context.browser.new_context(viewport={"width": 1366, "height": 768}).new_page(), server.url)
    other.start()
    other.open("LAS")
    other.click_voxel(inside)
    assert other.press("Save").startswith("Saved: spleen. ")
    other.page.context.close()


def test_a_first_click_has_to_be_inside(tried: TryIt) -> None:
    tried.open("LPS")
    place = tried.page.evaluate("index => deepgrow3d.viewer.show(index)", [15, 18, 11])
    tried.page.mouse.click(place["x"], place["y"], button="right")
    assert tried.wait() == "First click inside the spleen."


def test_own_structures_and_clearing(tried: TryIt, phantom: Phantom) -> None:
    tried.open("RAS")
    tried.page.get_by_label("Name").fill("my lesion")
    tried.page.get_by_role("button", name="Add").click()
    assert tried.click_voxel((phantom.centre[0], phantom.centre[1], phantom.centre[2])).startswith("my lesion: ")
    assert tried.painted().max() == 14
    tried.press("Clear")
    assert tried.painted().max() == 0
    tried.press("Undo")
    assert tried.painted().max() == 14


def test_the_start_page_tells_the_state(page: Page, server: Server, pictures: Path) -> None:
    page.goto(server.url)
    expect(page.get_by_text("done,")).to_contain_text("left")
    expect(page.get_by_text("Dice on ct-trunk")).to_be_visible()
    expect(page.get_by_text("No training is running.")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Studies done")).to_be_visible()
    page.screenshot(path=pictures / "start-page.png")


def test_a_running_training_has_a_curve(page: Page, server: Server) -> None:
    state = server.json("/status")
    state["training"] = {"is_running": True, "step": 30, "total_steps": 100, "dice": [[10, 0.5], [20, 0.7], [30, 0.75]]}
    state["training"]["message"] = "Epoch 3 of 10"

    def answer(route: Route) -> None:
        route.fulfill(json=state)

    page.route("**/status", answer)
    page.goto(server.url)
    expect(page.get_by_text("Running: step 30 of 100. Epoch 3 of 10")).to_be_visible()
    expect(page.get_by_role("img", name="Validation Dice by step")).to_contain_text("0.75")


def test_the_api_can_be_read_without_a_network(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/docs")
    expect(page.get_by_text("/infer/{model}", exact=True)).to_be_visible()
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


def deepest(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    i, j, k = (int(place) for place in np.unravel_index(depth.argmax(), depth.shape))
    return i, j, k


def voxel_of(mask: npt.NDArray[np.bool_], k: int) -> tuple[int, int, int]:
    """One of the slice ``k``, at the edge of ``mask``."""
    i, j = np.argwhere(mask[:, :, k])[0].tolist()
    return i, j, k


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def affine_of(study: str, phantom: Phantom) -> npt.NDArray[np.float64]:
    if study == "oblique":
        return phantom.affine
    return np.diag([*np.multiply(ORIENTATIONS[study], (3.0, 2.5, 5.0)), 1.0])


def ramp(axes: str, axis: int) -> nib.Nifti1Image:
    """An image stored along ``axes`` whose values grow along one of the stored axes."""
    affine = np.diag([1.5, 2.5, 4.0, 1.0])
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    stored = nib.Nifti1Image(np.zeros(RAMP_SHAPE, np.int16), affine).as_reoriented(turn)
    return nib.Nifti1Image(np.indices(stored.shape)[axis].astype(np.int16) * RAMP_STEP, stored.affine)


def test_the_start_page_tells_a_refusal_in_the_servers_words_and_a_silent_server_in_its_own(
    page: Page, server: Server
) -> None:
    page.route("**/status", lambda route: route.fulfill(status=403, json={"detail": "Ask for the role 'reader'."}))
    page.goto(server.url)
    told = page.locator("#told")
    expect(told).to_have_text("Ask for the role 'reader'.")
    page.unroute("**/status")
    page.route("**/status", lambda route: route.abort())
    expect(told).to_contain_text("The server does not answer.")
