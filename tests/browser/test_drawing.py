"""What is drawn in the page goes to the study it was drawn on, whole and once, whatever is pressed meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Browser, Request, Route, expect

from tests.browser.conftest import FOREIGN
from tests.browser.pages import BESIDE, INSIDE, TryIt, infer_requests, notes, versions
from tests.integration.launcher import Launcher, Server
from tests.integration.phantom import Phantom, voxels_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LOSE_GRAPHICS = """() => {
  const graphics = document.getElementById('canvas').getContext('webgl2');
  graphics.getExtension('WEBGL_lose_context').loseContext();
}"""


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
