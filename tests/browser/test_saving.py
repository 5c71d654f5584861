"""What is saved in the page takes the place of nothing that was not seen, and what is not saved is told until it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Route, expect

from tests.browser.pages import BESIDE, INSIDE, TryIt, notes, versions
from tests.integration.launcher import Server
from tests.integration.phantom import Phantom, nifti, voxels_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]

VALUES = "**/datastore/label?*output=uint8"


def save_elsewhere(server: Server, study: str, mask: npt.NDArray[np.bool_], phantom: Phantom, name: str) -> None:
    """Another person saves a label with one structure."""
    content = nifti(mask.astype(np.uint8), phantom.affine)
    assert server.save_label(study, "label.nii.gz", content, names={1: name}, tag="final").ok


def test_what_somebody_saved_meanwhile_is_replaced_only_where_that_is_wanted(
    tried: TryIt, server: Server, phantom: Phantom
) -> None:
    questions: list[str] = []
    tried.page.on("dialog", lambda dialog: questions.append(dialog.message))
    tried.go_to("shared")
    tried.click_voxel(INSIDE)
    drawn = tried.painted()
    save_elsewhere(server, "shared", phantom.tissue, phantom, "liver")
    assert tried.press("Save") == "Not saved."
    expect(notes(tried.page)).to_contain_text("Somebody saved version 1 of its label since you opened it.")
    np.testing.assert_array_equal(tried.painted(), drawn)
    assert len(versions(server, "shared")) == 1

    tried.page.get_by_role("button", name="Save over it").click()
    tried.page.wait_for_function("() => document.getElementById('told').textContent.startsWith('Saved: spleen.')")
    assert len(questions) == 1  # whether it is to be replaced
    expect(notes(tried.page)).to_have_count(0)
    tried.click_voxel(BESIDE)
    assert tried.press("Save").startswith("Saved: spleen.")  # based on what this page saved
    assert len(versions(server, "shared")) == 3

    save_elsewhere(server, "shared", ~phantom.tissue, phantom, "liver")
    tried.press("Undo")
    assert tried.press("Save") == "Not saved."
    tried.page.get_by_role("button", name="Open theirs").click()
    tried.page.wait_for_function("() => document.getElementById('told').textContent.startsWith('The saved label')")
    np.testing.assert_array_equal(tried.painted(), np.where(phantom.tissue, 0, 6))
    assert len(versions(server, "shared")) == 4


def test_names_and_voxels_of_a_label_are_of_one_version(tried: TryIt, server: Server, phantom: Phantom) -> None:
    save_elsewhere(server, "twice", phantom.tissue, phantom, "liver")
    is_saved_again = [True, False]

    def save_first(route: Route) -> None:
        if not is_saved_again or is_saved_again.pop(0):
            save_elsewhere(server, "twice", ~phantom.tissue, phantom, "aorta")
        route.continue_()

    tried.page.route(VALUES, save_first)
    tried.go_to("twice")
    assert tried.wait().startswith("The saved label is shown.")
    np.testing.assert_array_equal(tried.painted(), np.where(phantom.tissue, 0, 8))
    tried.page.reload()  # from now on, somebody saves at each reading
    assert tried.wait().startswith("The saved label was replaced again and again")
    assert tried.page.get_by_label("Study").input_value() == ""


def test_a_label_that_is_away_for_a_moment_can_be_opened_and_replaced_later(
    tried: TryIt, server: Server, phantom: Phantom
) -> None:
    save_elsewhere(server, "away", phantom.tissue, phantom, "liver")

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"detail": "Not now."})

    tried.page.route(VALUES, refuse, times=1)
    tried.go_to("away")
    assert tried.wait() == "Not now."
    expect(notes(tried.page)).to_have_count(0)
    tried.open("away")
    np.testing.assert_array_equal(tried.painted(), np.where(phantom.tissue, 6, 0))
    tried.click_voxel(INSIDE)
    assert tried.press("Save").startswith("Saved: spleen, liver.")


def test_what_is_not_saved_is_told_in_the_next_study_too_and_nobody_is_sent_away_from_it(
    tried: TryIt,
) -> None:
    def sign_out(route: Route) -> None:
        route.fulfill(status=401, json={"detail": "Sign in."})

    tried.go_to("left")
    tried.click_voxel(INSIDE)
    drawn = tried.painted()
    tried.page.route("**/datastore/label?image=**", sign_out, times=1)
    assert tried.press("Save") == "Not saved."
    told = "What was drawn on left is not saved. Sign in in another tab, then save again."
    expect(notes(tried.page)).to_contain_text(told)
    link = tried.page.get_by_role("link", name="Sign in in another tab")
    assert (link.get_attribute("href"), link.get_attribute("target")) == ("login", "_blank")
    np.testing.assert_array_equal(tried.painted(), drawn)
    assert tried.press("Save") == "Saved: spleen."
    expect(notes(tried.page)).to_have_count(0)

    tried.click_voxel(BESIDE)
    held = tried.held("**/datastore/label?image=**")
    tried.save_button().click()
    held.wait_for(tried.page, 1)
    tried.page.get_by_label("Study").select_option("ten")
    tried.wait()
    held.routes.pop().fulfill(status=507, json={"detail": "The disk is full."})
    fault = notes(tried.page).get_by_text("What was drawn on left is not saved. The disk is full.")
    expect(fault).to_be_visible()
    tried.choose("liver")
    assert tried.wait() == "Click in the liver."
    expect(fault).to_be_visible()
    tried.page.get_by_role("button", name="Dismiss").click()
    expect(notes(tried.page)).to_have_count(0)


def test_on_an_image_that_was_replaced_nothing_is_painted_and_nothing_saved(
    tried: TryIt, server: Server, phantom: Phantom
) -> None:
    tried.go_to("replaced")
    tried.click_voxel(INSIDE)
    drawn = tried.painted()
    other = nifti(voxels_of(phantom.file.read_bytes())[::-1], phantom.affine)
    files = {"file": ("other.nii.gz", other)}
    assert server.request("PUT", "/datastore/image", params={"image": "replaced"}, files=files).ok
    told = "The image 'replaced' was replaced since it was opened. Open it again."
    assert tried.click_voxel(BESIDE) == told
    np.testing.assert_array_equal(tried.painted(), drawn)
    assert tried.press("Save") == "Not saved."
    expect(notes(tried.page)).to_contain_text(f"What was drawn on replaced is not saved. {told}")
    assert versions(server, "replaced") == []
    tried.page.reload()
    tried.wait()
    tried.click_voxel(INSIDE)
    assert tried.press("Save") == "Saved: spleen."


def test_a_series_opens_although_its_label_cannot_be_read(tried: TryIt) -> None:
    """A DICOMweb server's segmentation is read for the names in it."""

    def refuse(route: Route) -> None:
        route.fulfill(status=400, json={"detail": "Its segments overlap."})

    tried.page.route("**/datastore/label/info?*", refuse)
    tried.go_to("int16")
    expect(notes(tried.page)).to_contain_text("nothing can be saved over it here. Its segments overlap.")
    assert tried.click_voxel(INSIDE).startswith("spleen: 1 click, ")
    expect(tried.save_button()).to_be_disabled()


def test_a_drawing_that_was_taken_back_is_left_without_a_question(tried: TryIt) -> None:
    questions: list[str] = []
    tried.page.on("dialog", lambda dialog: questions.append(dialog.message))
    tried.go_to("undone")
    tried.click_voxel(INSIDE)
    tried.press("Undo")
    expect(tried.save_button()).to_be_disabled()
    tried.open("ten")
    assert questions == []


def test_the_next_save_does_not_wait_for_the_list_of_studies(tried: TryIt) -> None:
    tried.go_to("one")
    tried.click_voxel(INSIDE)
    tried.held("**/datastore/?output=all")  # for good
    assert tried.press("Save") == "Saved: spleen."
    tried.click_voxel(BESIDE)
    assert tried.press("Save") == "Saved: spleen."


def test_a_save_that_comes_too_late_is_told_although_another_study_is_shown(
    tried: TryIt, server: Server, phantom: Phantom
) -> None:
    tried.go_to("outdated")
    tried.click_voxel(INSIDE)
    save_elsewhere(server, "outdated", phantom.tissue, phantom, "liver")
    held = tried.held("**/datastore/label?image=**")
    tried.save_button().click()
    held.wait_for(tried.page, 1)
    tried.page.get_by_label("Study").select_option("ten")
    tried.wait()
    held.release()
    told = "What was drawn on outdated is not saved. Somebody saved version 1 of its label since you opened it."
    expect(notes(tried.page)).to_contain_text(told)
    expect(tried.page.get_by_role("button", name="Save over it")).to_have_count(0)
    assert len(versions(server, "outdated")) == 1


def test_series_of_one_name_are_told_apart(tried: TryIt) -> None:
    infos = {
        "1.2.840.7001": {"PatientID": "P1", "SeriesDescription": "CT", "StudyDate": "20240131"},
        "1.2.840.8001": {"PatientID": "P1", "SeriesDescription": "CT", "StudyDate": "20240131"},
        "1.2.840.9001": {"PatientID": "P1", "SeriesDescription": "CT", "StudyDate": "20250131"},
        "1.2.840.9002": {"PatientID": "P2", "SeriesDescription": "CT"},
    }

    def list_series(route: Route) -> None:
        route.fulfill(json={"objects": {uid: {"image": {"info": info}, "labels": {}} for uid, info in infos.items()}})

    tried.page.route("**/datastore/?output=all", list_series)
    tried.page.goto(f"{tried.url}/try")
    tried.wait()
    assert tried.page.get_by_label("Study").locator("option").all_inner_texts() == [
        "P1: CT, 2024-01-31 ...0.7001",
        "P1: CT, 2024-01-31 ...0.8001",
        "P1: CT, 2025-01-31",
        "P2: CT",
    ]
