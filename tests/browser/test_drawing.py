"""What is drawn in the page goes to the study it was drawn on, whole and once, whatever is pressed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.browser.conftest import FOREIGN
from tests.browser.pages import TryIt, notes, versions
from tests.integration.conftest import Launcher, Phantom, Server, voxels_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]

INSIDE = (13, 20, 10)
BESIDE = (13, 24, 10)
QUICK = (INSIDE, BESIDE, (13, 16, 10), (10, 20, 10), (16, 20, 10))
LONG_PRESS = """async ([clientX, clientY]) => {
  const finger = { pointerType: 'touch', isPrimary: true, button: 0, clientX, clientY };
  const canvas = document.getElementById('canvas');
  canvas.dispatchEvent(new PointerEvent('pointerdown', finger));
  await new Promise(then => setTimeout(then, 700));
  canvas.dispatchEvent(new PointerEvent('pointerup', finger));
}"""
LOSE_GRAPHICS = """() => {
  const graphics = document.getElementById('canvas').getContext('webgl2');
  graphics.getExtension('WEBGL_lose_context').loseContext();
}"""
HAS_DOT_INSIDE = "() => deepgrow3d.viewer.niivue.drawBitmap.includes(254)"
DOT_COLOURS = ((255, 225, 0), (80, 255, 80), (255, 60, 60))
CAPITAL_Z = "() => dispatchEvent(new KeyboardEvent('keydown', { key: 'Z', ctrlKey: true, cancelable: true }))"


def infer_requests(page: Page) -> list[dict[str, Any]]:
    """Filled with what clicks ask for, from now on."""
    asked: list[dict[str, Any]] = []

    def look_at(request: Request) -> None:
        if "/infer/" in request.url:
            body = request.post_data or ""
            asked.append(json.loads(body[body.index("{") : body.rindex("}") + 1]))

    page.on("request", look_at)
    return asked


def test_nothing_is_saved_or_clicked_while_another_study_is_loaded(tried: TryIt) -> None:
    tried.go_to("one")
    place = tried.place_of(INSIDE)
    tried.click_voxel(INSIDE)
    saves, asked, held = tried.saves(), infer_requests(tried.page), tried.held("**/info/")
    tried.page.get_by_label("Study").select_option("two")
    held.wait_for(tried.page, 1)
    for name in ("Save", "Undo", "Clear"):
        expect(tried.page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    for key in ("Control+s", "Control+z"):
        tried.page.keyboard.press(key)
    tried.click_at(place)
    tried.page.wait_for_timeout(300)
    held.release()
    assert tried.wait() == "Click in the spleen."
    assert tried.page.get_by_label("Study").input_value() == "two"
    assert (saves, asked) == ([], [])
    assert tried.painted().shape == (30, 36, 22)
    assert tried.painted().max() == 0
    tried.click_voxel(INSIDE)
    assert tried.press("Save") == "Saved: spleen."
    assert saves == ["two"]


def test_where_an_image_cannot_be_loaded_nothing_is_left_to_save(tried: TryIt) -> None:
    tried.go_to("one")
    tried.click_voxel(INSIDE)
    saves = tried.saves()

    def refuse(route: Route) -> None:
        route.fulfill(status=500, json={"detail": "No image today."})

    tried.page.route("**/datastore/image?image=three", refuse)
    tried.page.get_by_label("Study").select_option("three")
    assert tried.wait() == "No image today."
    expect(tried.save_button()).to_be_disabled()
    tried.page.keyboard.press("Control+s")
    tried.page.wait_for_timeout(300)
    assert saves == []
    assert tried.page.get_by_label("Study").input_value() == ""
    tried.open("one")
    assert tried.click_voxel(INSIDE).startswith("spleen: 1 click, ")


def test_only_the_last_of_the_studies_that_were_chosen_is_loaded(tried: TryIt) -> None:
    tried.go_to("one")
    select = tried.page.get_by_label("Study")
    images: list[str] = []
    ended: list[str] = []

    def look_at(request: Request) -> None:
        if "/datastore/image?" in request.url:
            images.append(request.url)

    tried.page.on("request", look_at)
    tried.page.on("requestfailed", lambda request: ended.append(request.url))
    names = tried.held("**/info/")
    select.select_option("three")
    names.wait_for(tried.page, 1)
    held = tried.held("**/datastore/image?image=two")
    select.select_option("two")
    names.wait_for(tried.page, 2)
    names.release()
    held.wait_for(tried.page, 1)
    select.select_option("int16")
    assert tried.wait().startswith("The saved label is shown.")
    assert select.input_value() == "int16"
    assert tried.painted().max() > 0
    assert [url.rpartition("=")[2] for url in images] == ["two", "int16"]
    assert [url.rpartition("=")[2] for url in ended if "/datastore/image?" in url] == ["two"]


@pytest.mark.parametrize("study", FOREIGN)
def test_a_label_of_another_program_is_shown_and_kept(
    tried: TryIt, server: Server, phantom: Phantom, study: str
) -> None:
    tried.go_to(study)
    shown = tried.painted()
    np.testing.assert_array_equal(shown > 0, phantom.label > 0)
    assert sorted(np.unique(shown)) == [0, 14, 15, 16, 17]
    tried.click_voxel(INSIDE)
    both = tried.painted()
    np.testing.assert_array_equal(both[phantom.label > 0], shown[phantom.label > 0])
    tried.press("Save")
    answer = server.request("GET", "/datastore/label", params={"label": study, "tag": "final"})
    np.testing.assert_array_equal(voxels_of(answer.content), both)
    assert len(versions(server, study)) == 2


def test_a_label_that_cannot_be_shown_is_not_replaced(tried: TryIt) -> None:
    tried.go_to("displaced")
    saves = tried.saves()
    assert tried.click_voxel(INSIDE).startswith("spleen: 1 click, ")
    expect(tried.save_button()).to_be_disabled()
    tried.page.keyboard.press("Control+s")
    assert tried.wait().startswith("There is a saved label that cannot be shown")
    tried.choose("liver")
    expect(notes(tried.page)).to_contain_text("There is a saved label that cannot be shown")
    tried.open("one")
    expect(notes(tried.page)).to_have_count(0)
    assert saves == []


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


def test_quick_clicks_are_answered_one_by_one_and_each_is_a_step(tried: TryIt) -> None:
    tried.go_to("five")
    places = [tried.place_of(index) for index in QUICK]
    asked, held = infer_requests(tried.page), tried.held("**/infer/**")
    for place in places:
        tried.click_at(place)
    tried.choose("liver")
    tried.click_at(places[0])
    held.wait_for(tried.page, 2)
    tried.choose("spleen")
    assert tried.page.evaluate(HAS_DOT_INSIDE)
    assert [request["foreground"] for request in asked] == [[list(QUICK[0])], [list(QUICK[0])]]
    held.release()
    tried.page.wait_for_function("() => !deepgrow3d.structures().some(one => one.isWaiting)")
    assert tried.wait() != ""
    expect(tried.page.locator("#told")).not_to_have_class("fault")
    assert tried.clicks("liver") == [list(QUICK[0])]
    for count in range(len(QUICK), 0, -1):
        assert tried.clicks() == [list(index) for index in QUICK[:count]]
        tried.press("Undo")
    assert tried.painted()[QUICK[0]] == 6


def test_a_structure_is_chosen_though_an_answer_arrives_while_it_is_pressed(tried: TryIt) -> None:
    tried.go_to("five")
    held, place = tried.held("**/infer/**"), tried.place_of(INSIDE)
    tried.click_at(place)
    held.wait_for(tried.page, 1)
    liver = tried.page.get_by_role("option", name="liver", exact=True)
    liver.hover()
    tried.page.mouse.down()
    held.release()
    assert tried.wait().startswith("spleen: 1 click, ")
    tried.page.mouse.up()
    expect(liver).to_have_attribute("aria-selected", "true")


def test_undo_takes_back_only_the_click_that_is_not_answered_yet(tried: TryIt) -> None:
    tried.go_to("five")
    tried.click_voxel(INSIDE)
    first = tried.painted()
    held, place = tried.held("**/infer/**"), tried.place_of(BESIDE)
    tried.click_at(place)
    held.wait_for(tried.page, 1)
    assert tried.press("Undo") == "spleen: 1 click"
    held.release()
    tried.page.wait_for_timeout(1000)
    assert tried.clicks() == [list(INSIDE)]
    np.testing.assert_array_equal(tried.painted(), first)


def test_a_refused_click_is_told_and_in_none_of_the_next_ones(tried: TryIt) -> None:
    tried.go_to("five")
    held, places = tried.held("**/infer/**"), [tried.place_of(index) for index in (INSIDE, BESIDE)]
    tried.click_at(places[0])
    held.wait_for(tried.page, 1)
    held.routes.pop().fulfill(status=503, json={"detail": "Busy."})
    assert tried.wait() == "Busy."
    for place in places:
        tried.click_at(place)
    held.wait_for(tried.page, 1)
    held.routes.pop().fulfill(status=503, json={"detail": "Busy."})
    held.wait_for(tried.page, 1)
    held.release()
    tried.page.wait_for_function("() => !deepgrow3d.structures().some(one => one.isWaiting)")
    assert tried.wait().startswith("spleen: 1 click, ")
    assert tried.clicks() == [list(BESIDE)]


def test_without_the_graphics_card_nothing_is_clicked_and_all_can_be_saved(tried: TryIt) -> None:
    tried.go_to("two")
    place = tried.place_of(BESIDE)
    tried.click_voxel(INSIDE)
    drawn, asked = tried.painted(), infer_requests(tried.page)
    tried.page.evaluate(LOSE_GRAPHICS)
    expect(notes(tried.page)).to_have_text("The graphics card stopped. Save, then reload the page.")
    tried.click_at(place)
    tried.press("Unsure")
    tried.page.get_by_label("Overlay").fill("0.8")
    assert tried.press("Save").startswith("Saved: spleen.")
    assert asked == []
    np.testing.assert_array_equal(tried.painted(), drawn)


def test_undo_after_clear_brings_back_what_was_saved(tried: TryIt) -> None:
    tried.go_to("six")
    tried.click_voxel(INSIDE)
    tried.press("Save")
    tried.page.reload()
    tried.wait()
    saved = tried.painted()
    assert saved.max() == 1
    tried.press("Clear")
    assert tried.painted().max() == 0
    tried.press("Undo")
    np.testing.assert_array_equal(tried.painted(), saved)


def test_what_is_clicked_during_a_save_is_not_saved_yet(tried: TryIt) -> None:
    tried.go_to("seven")
    beside = tried.place_of(BESIDE)
    tried.click_voxel(INSIDE)
    saves, held = tried.saves(), tried.held("**/datastore/label?image=**")
    tried.save_button().click()
    held.wait_for(tried.page, 1)
    expect(tried.save_button()).to_be_disabled()
    tried.page.keyboard.press("Control+s")
    with tried.page.expect_response(lambda answer: "/infer/" in answer.url):
        tried.click_at(beside)
    tried.wait()
    held.release()
    tried.page.wait_for_function("() => document.getElementById('told').textContent.startsWith('Saved')")
    assert saves == ["seven"]
    expect(tried.save_button()).to_be_enabled()
    assert tried.press("Save") == "Saved: spleen."
    expect(tried.save_button()).to_be_disabled()


def test_the_history_has_the_clicks_of_the_mask_and_one_person_is_one(tried: TryIt, server: Server) -> None:
    tried.go_to("eight")
    tried.click_voxel(INSIDE)
    tried.click_voxel(BESIDE)
    tried.press("Undo")
    assert tried.press("Save") == "Saved: spleen."
    (version,) = versions(server, "eight")
    assert version["clicks"] == {"spleen": {"foreground": [list(INSIDE)], "background": []}}
    assert version["client_id"].startswith("page-")
    tried.page.reload()
    tried.wait()
    tried.click_voxel(BESIDE)
    assert tried.press("Save") == "Saved: spleen."  # nobody else had saved it


def test_a_click_sends_the_image_to_the_graphics_card_once_at_most(tried: TryIt) -> None:
    tried.go_to("nine")
    tried.page.evaluate("""() => {
      const niivue = deepgrow3d.viewer.niivue, update = niivue.updateGLVolume.bind(niivue);
      globalThis.uploads = 0;
      niivue.updateGLVolume = () => { uploads++; update(); };
    }""")
    tried.click_voxel(INSIDE)
    tried.choose("liver")
    tried.page.get_by_label("Overlay").fill("0.8")
    assert tried.page.evaluate("() => [uploads, deepgrow3d.viewer.niivue.drawOpacity]") == [0, 0.8]


def test_a_tap_of_a_finger_is_a_click(chromium: Browser, server: Server) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tried = TryIt(context.new_page(), server.url)
    tried.go_to("nine")
    x, y = tried.place_of(INSIDE)
    asked = infer_requests(tried.page)
    for _ in range(2):  # the second one follows at once, and changes no contrast
        tried.page.touchscreen.tap(x, y)
    tried.page.wait_for_timeout(300)
    assert tried.wait().startswith("spleen: 1 click, ")
    assert [request["foreground"] for request in asked] == [[list(INSIDE)]] * 2
    assert tried.page.evaluate("() => deepgrow3d.viewer.contrast") == [-160, 240]
    with tried.page.expect_response(lambda answer: "/infer/" in answer.url):
        tried.page.evaluate(LONG_PRESS, list(tried.place_of(BESIDE)))
    assert tried.wait().startswith("spleen: 2 clicks, ")
    assert asked[-1]["background"] == [list(BESIDE)]
    tried.save_button().tap()
    assert tried.wait() == "Saved: spleen."
    context.close()


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


def test_whoever_signs_in_comes_to_the_study_that_was_asked_for(
    chromium: Browser, launcher: Launcher, phantom: Phantom
) -> None:
    studies = launcher.folder / "studies"
    studies.mkdir()
    for name in ("one", "two"):
        (studies / f"{name}.nii.gz").write_bytes(phantom.file.read_bytes())
    made = launcher.deepgrow3d("token", "add", "anna", "--role", "annotator", "--file", "tokens.txt")
    server = launcher.serve(studies, "--tokens", "tokens.txt")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/try?study=two")
    page.get_by_label("Your token").fill(made.stdout.split()[-1])
    page.get_by_role("button", name="Sign in").click()
    TryIt(page, server.url).wait()
    assert page.url == f"{server.url}/try?study=two"
    assert page.get_by_label("Study").input_value() == "two"
    context.close()


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
