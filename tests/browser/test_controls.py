"""Keys, structures and screens of the page: what they do, and that they do nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.pages import INSIDE, TryIt, versions
from tests.integration.launcher import Server
from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DOT_COLOURS = ((255, 225, 0), (80, 255, 80), (255, 60, 60))
CAPITAL_Z = "() => dispatchEvent(new KeyboardEvent('keydown', { key: 'Z', ctrlKey: true, cancelable: true }))"


def test_keys_do_nothing_where_there_is_nothing_to_do(tried: TryIt, server: Server) -> None:
    tried.go_to("four")
    saves = tried.saves()
    for key in ("Control+s", "Control+z"):
        tried.page.keyboard.press(key)
    tried.page.wait_for_timeout(300)
    expect(tried.save_button()).to_be_disabled()
    tried.click_voxel(INSIDE)
    name = tried.page.get_by_label("Name")
    name.fill("my lesion")
    name.press("Control+z")
    assert tried.clicks() == [list(INSIDE)]
    for _ in range(2):
        tried.page.keyboard.press("Control+s")
    assert tried.wait() == "Saved: spleen."
    tried.page.evaluate(CAPITAL_Z)  # as with Caps Lock
    assert tried.clicks() == []
    tried.page.keyboard.press("Control+s")  # an empty label takes the place of the saved one, where that is wanted
    assert tried.wait() == "Saved: nothing is labelled."
    assert saves == ["four", "four"]
    assert [len(version["clicks"]) for version in versions(server, "four")] == [1, 0]


def test_no_key_or_double_click_turns_the_view_to_another_one(tried: TryIt) -> None:
    tried.go_to("ten")
    shown = "() => [deepgrow3d.viewer.contrast, deepgrow3d.viewer.niivue.screenSlices.map(one => one.axCorSag)]"
    before = tried.page.evaluate(shown)
    x, y = tried.place_of(INSIDE)
    tried.page.mouse.dblclick(x, y)
    for key in ("v", "c", "m"):
        tried.page.keyboard.press(key)
        tried.page.wait_for_timeout(200)
    tried.wait()
    assert tried.page.evaluate(shown) == before
    tried.page.keyboard.press("Control+z")  # our own keys work there
    assert tried.page.evaluate("() => document.activeElement.id") == "canvas"


@pytest.mark.parametrize(
    ("key", "towards"),
    [
        ("ArrowUp", "S"),
        ("ArrowDown", "I"),
        ("ArrowLeft", "R"),  # which is on the left of the screen
        ("ArrowRight", "L"),
        ("PageUp", "A"),
        ("PageDown", "P"),
    ],
)
def test_a_key_turns_the_slices_by_one_voxel(tried: TryIt, phantom: Phantom, key: str, towards: str) -> None:
    tried.go_to("ten")
    expected = list(INSIDE)
    for axis, (forwards, backwards) in enumerate(
        zip(nib.aff2axcodes(phantom.affine), nib.aff2axcodes(-phantom.affine), strict=True)
    ):
        expected[axis] += (forwards == towards) - (backwards == towards)
    assert expected != list(INSIDE)
    after = tried.crosshair_at(expected)
    tried.crosshair_at(INSIDE)
    tried.page.keyboard.press(key)
    assert tried.crosshair() == pytest.approx(after)
    structures = tried.page.get_by_role("listbox", name="Structures")
    structures.get_by_role("option").first.focus()
    tried.page.keyboard.press(key)
    is_of_list = key in {"ArrowUp", "ArrowDown"}
    assert (tried.crosshair() == pytest.approx(after)) == is_of_list


def test_slices_turn_no_further_than_the_image_goes(tried: TryIt) -> None:
    tried.go_to("ten")
    ends = []
    for key in ("PageUp", "PageDown"):
        for _ in range(60):  # there are fewer voxels
            tried.page.keyboard.press(key)
        there = tried.crosshair()
        tried.page.keyboard.press(key)
        assert tried.crosshair() == there
        ends.append(there)
    front, back = ends
    assert [front[1], back[1]] == pytest.approx([1, 0], abs=0.5 / 36 + 1e-6), "the middles of the last voxels"


def test_after_a_structure_was_chosen_with_the_mouse_arrows_turn_the_slices(tried: TryIt) -> None:
    tried.go_to("ten")
    before = tried.crosshair_at(INSIDE)
    tried.choose("liver")
    tried.page.keyboard.press("ArrowUp")
    assert tried.crosshair() != pytest.approx(before)
    chosen = tried.page.locator("[role=option][aria-selected=true]")
    expect(chosen).to_contain_text("liver")


def test_structures_are_told_apart_and_chosen_with_the_keyboard(tried: TryIt) -> None:
    tried.go_to("ten")
    options = tried.page.get_by_role("listbox", name="Structures").get_by_role("option")
    for key, place in (("Enter", 2), (" ", 3)):
        options.nth(place).focus()
        options.nth(place).press(key)
        expect(options.nth(place)).to_have_attribute("aria-selected", "true")
        expect(options.nth(place)).to_be_focused()
    for key, place in (("ArrowDown", 4), ("ArrowUp", 3), ("Home", 0)):
        tried.page.keyboard.press(key)
        expect(options.nth(place)).to_have_attribute("aria-selected", "true")
        expect(options.nth(place)).to_be_focused()
    expect(tried.page.get_by_role("img", name="Three slices of the image")).to_be_visible()

    tried.page.get_by_label("Name").fill("my lesion")
    tried.page.get_by_role("button", name="Add").click()
    colours = tried.page.evaluate("() => deepgrow3d.structures().map(one => one.colour)")
    assert len(colours) == 14
    seen = lightness_and_hue([*colours, *DOT_COLOURS])
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    assert distances[np.triu_indices(len(seen), 1)].min() > 25


def test_air_anywhere_makes_it_a_ct(tried: TryIt) -> None:
    tried.go_to("ten")  # its air lies at one edge only
    assert tried.page.get_by_label("Contrast").input_value() == "abdomen (-160 to 240 HU)"


def test_the_sidebar_can_be_used_on_small_screens(chromium: Browser, server: Server, pictures: Path) -> None:
    for width, height in ((390, 844), (844, 390)):
        context = chromium.new_context(viewport={"width": width, "height": height}, has_touch=True)
        tried = TryIt(context.new_page(), server.url)
        tried.go_to("ten")
        assert tried.page.evaluate("() => document.documentElement.scrollWidth") <= width
        canvas = tried.page.locator("#canvas").bounding_box()
        assert canvas is not None
        assert canvas["width"] * canvas["height"] > 0.4 * width * height
        tried.page.screenshot(path=pictures / f"try-it-{width}.png")
        for name in ("Save", "Undo"):
            tried.page.get_by_role("button", name=name).scroll_into_view_if_needed()
            expect(tried.page.get_by_role("button", name=name)).to_be_in_viewport()
        tried.choose("inferior vena cava")
        tried.click_voxel(INSIDE)
        assert tried.clicks("inferior vena cava") == [list(INSIDE)]
        context.close()


def lightness_and_hue(colours: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """CIELAB, in which 2 can just be told apart; of sRGB values up to 255."""
    share = np.asarray(colours) / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    root = np.cbrt(linear @ to_xyz.T / (0.9505, 1, 1.089))
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], axis=1)
