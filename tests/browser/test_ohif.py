"""The path of an annotator through OHIF, from the study list to a saved segmentation, on a real Orthanc."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import numpy.typing as npt
import pytest
import requests
from playwright.sync_api import Page, Response, Route, expect
from scipy import ndimage

from tests.browser.ohif import Ohif
from tests.integration.launcher import Server
from tests.integration.phantom import Reference

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Mask = npt.NDArray[np.bool_]
GREY_TOLERANCE = 12
"""How far red, green and blue of a CT's pixel lie apart where nothing is painted over it."""

SLAB = (512, 512, 20)
"""Voxels of the smaller sample."""
BOX = ((10, 10, 2), (20, 20, 6))
MINE = (15, 15, 3)
"""A voxel in the box."""
THEIRS = (40, 40, 4)


@pytest.fixture(scope="module")
def ohif(browser_page: Page, ohif_server: Server) -> Iterator[Ohif]:
    viewer = Ohif(browser_page, ohif_server.url)
    # Left by another server of this host: all ports share their cookies.
    other = "http%3A//127.0.0.1%3A1/"
    browser_page.context.add_cookies(
        [{"name": "MONAILABEL_SERVER_URL", "value": other, "domain": "127.0.0.1", "path": "/ohif"}]
    )
    viewer.open_study_list()
    yield viewer
    assert viewer.elsewhere == []
    assert viewer.faults == []


@pytest.fixture(scope="module")
def spleen(reference: Reference) -> Mask:
    """In the order of the DICOM series: i to the left, j to the back."""
    return reference.structure("spleen")[::-1, ::-1]


@pytest.fixture(scope="module")
def liver(reference: Reference) -> Mask:
    """In the order of the DICOM series."""
    return reference.structure("liver")[::-1, ::-1]


def test_an_annotators_path(ohif: Ohif, ohif_server: Server, spleen: Mask, liver: Mask, pictures: Path) -> None:
    assert ohif.page.get_by_text("Sample, Slab").first.is_visible()
    ohif.open_study("Sample, Trunk")
    ohif.connect()
    ohif.point_prompts()

    # One click in the spleen paints it, at the place that was clicked.
    ohif.choose("spleen")
    inside = deepest(spleen)
    ohif.click_voxel(inside)
    answer = ohif.run()
    assert clicks_in(answer)["foreground"] == [list(inside)]
    sent, shown = mask_in(answer), ohif.labelmap() == ohif.structures()["spleen"]
    assert shown[inside]
    np.testing.assert_array_equal(shown, sent)
    assert np.linalg.norm(centre(shown) - centre(sent)) <= 1
    assert dice(shown, spleen) > 0.7
    ohif.picture(pictures / "ohif-spleen.png")
    assert not is_grey(ohif.pixels_at(inside))
    outside = tuple(np.argwhere(~ndimage.binary_dilation(sent, iterations=6)[:, :, inside[2]]).mean(axis=0).round())
    assert is_grey(ohif.pixels_at((int(outside[0]), int(outside[1]), inside[2])))

    # A background click takes its voxel out of the mask.
    i, j = np.argwhere(shown[:, :, inside[2] - 2])[0].tolist()
    unwanted = (i, j, inside[2] - 2)
    ohif.choose("background")
    ohif.click_voxel(unwanted)
    ohif.choose("spleen")
    answer = ohif.run()
    assert clicks_in(answer) == {"foreground": [list(inside)], "background": [list(unwanted)]}
    spleen_shown = ohif.labelmap() == ohif.structures()["spleen"]
    assert spleen_shown[inside]
    assert not spleen_shown[unwanted]

    # The next organ does not touch the first.
    ohif.page.get_by_text("Clear All Points").click()
    ohif.choose("liver")
    ohif.click_voxel(deepest(liver))
    ohif.run()
    labelmap = ohif.labelmap()
    np.testing.assert_array_equal(labelmap == ohif.structures()["spleen"], spleen_shown)
    assert dice(labelmap == ohif.structures()["liver"], liver) > 0.5
    ohif.picture(pictures / "ohif-two-organs.png")

    # What is saved is what was seen, and counts at once.
    assert ohif.press("Save label") == "Saved: liver, spleen."
    assert status_of(ohif_server) == (2, 1)
    series, names, saved = saved_label(ohif_server)
    for name in ("spleen", "liver"):
        np.testing.assert_array_equal(saved == names[name], labelmap == ohif.structures()[name])

    # The study opened again shows it, with other structures as before.
    ohif.page.reload()
    ohif.wait_for_voxels()
    ohif.connect()
    assert ohif.press("Open saved label") == "Opened: liver, spleen."
    np.testing.assert_array_equal(ohif.labelmap(), labelmap)
    ohif.picture(pictures / "ohif-opened-again.png")

    # What another viewer saves opens here, names that this panel did not know included.
    mine = np.zeros(labelmap.shape, np.uint8)
    mine[20:40, 30:50, 60:70] = 7
    assert ohif_server.save_label(series, "label.bin", mine.tobytes(order="F"), names={7: "my lesion"}).ok
    assert ohif.press("Open saved label") == "Opened: my lesion."
    np.testing.assert_array_equal(ohif.labelmap() == ohif.structures()["my lesion"], mine > 0)


def test_saving_nothing_is_told(ohif: Ohif) -> None:
    ohif.page.goto(f"{ohif.url}/ohif/")
    ohif.open_study("Sample, Slab")
    ohif.connect()
    assert ohif.press("Save label").startswith("Save label failed. There is nothing to save yet")
    assert ohif.press("Open saved label").startswith("Open saved label failed.")


def test_a_drawing_belongs_to_its_series(ohif: Ohif, ohif_server: Server) -> None:
    infos = [series_of(ohif_server, patient) for patient in ("dicom-slab", "ct-trunk")]
    slab, trunk = (info["SeriesInstanceUID"] for info in infos)
    slab_name, trunk_name = (info["SeriesDescription"] for info in infos)
    before = versions(ohif_server, slab), versions(ohif_server, trunk)
    ohif.open_studies(*(info["StudyInstanceUID"] for info in infos))
    ohif.show_series(slab_name)
    ohif.connect()
    ohif.paint("liver", *BOX)

    # The viewport shows another series now; the voxels are still those of the first.
    ohif.show_series(trunk_name)
    refused = f"The drawing belongs to another series: {slab_name}. Show that one again"
    assert refused in ohif.press("Save label")
    assert refused in ohif.press("Open saved label")
    assert (versions(ohif_server, slab), versions(ohif_server, trunk)) == before

    ohif.show_series(slab_name)
    assert ohif.press("Save label").startswith("Saved: liver.")
    assert versions(ohif_server, slab) == before[0] + 1
    assert versions(ohif_server, trunk) == before[1]


def test_neither_others_labels_nor_drawings_are_lost(ohif: Ohif, ohif_server: Server) -> None:
    info = series_of(ohif_server, "dicom-slab")
    slab = info["SeriesInstanceUID"]
    save_elsewhere(ohif_server, slab, "spleen")
    newest = versions(ohif_server, slab)
    ohif.open_studies(info["StudyInstanceUID"])
    ohif.connect()
    expect(ohif.page.locator("#deepgrow3d-told")).to_contain_text(f"There is a saved label, version {newest}: spleen.")

    # Somebody saves while this one draws: that is told, and the drawing stays until a second press is confirmed.
    ohif.paint("liver", *BOX)
    save_elsewhere(ohif_server, slab, "aorta")
    told = f"Save label failed. Somebody saved version {newest + 1} of this label since the drawing was begun."
    assert ohif.press("Save label").startswith(told)
    assert ohif.faults.pop().startswith("409 ")
    assert ohif.answer("Save label", accept=False).startswith("Nothing was saved.")
    assert (versions(ohif_server, slab), ohif.structure_at(MINE)) == (newest + 1, "liver")
    assert ohif.answer("Save label", accept=True).startswith("Saved: liver.")
    assert versions(ohif_server, slab) == newest + 2

    # Somebody saves between the names and the voxels: both are those of the newer label. Nothing unsaved, no question.
    def save_first(route: Route) -> None:
        save_elsewhere(ohif_server, slab, "my lesion")
        route.continue_()

    ohif.page.route("**/datastore/label?*", save_first, times=1)
    assert ohif.press("Open saved label") == "Opened: my lesion."
    assert (ohif.structure_at(THEIRS), ohif.structure_at(MINE)) == ("my lesion", "")

    # What is drawn on is not replaced without a question, and is based on what was opened.
    ohif.paint("liver", *BOX)
    assert ohif.answer("Open saved label", accept=False) == "Nothing was opened."
    assert ohif.structure_at(MINE) == "liver"
    assert ohif.press("Save label").startswith("Saved: liver, my lesion.")
    ohif.paint("spleen", *BOX)
    assert ohif.answer("Open saved label", accept=True) == "Opened: liver, my lesion."
    assert ohif.structure_at(MINE) == "liver"


def series_of(server: Server, patient: str) -> dict[str, str]:
    """What is known of the one series of a patient."""
    known = (entry["image"]["info"] for entry in server.json("/datastore/?output=all")["objects"].values())
    (series,) = (info for info in known if info["PatientID"] == patient)
    return series


def versions(server: Server, series: str) -> int:
    return len(server.json(f"/datastore/label/versions?label={series}&tag=final"))


def save_elsewhere(server: Server, series: str, name: str) -> None:
    """Another viewer saves a label of the slab."""
    voxels = np.zeros(SLAB, np.uint8)
    voxels[THEIRS] = 1
    assert server.save_label(series, "label.bin", voxels.tobytes(order="F"), names={1: name}).ok


def deepest(mask: Mask) -> tuple[int, int, int]:
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    i, j, k = (int(place) for place in np.unravel_index(depth.argmax(), depth.shape))
    return i, j, k


def dice(one: Mask, other: Mask) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def centre(mask: Mask) -> npt.NDArray[np.float64]:
    return np.mean(np.nonzero(mask), axis=1)


def is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    return bool(np.ptp(pixels.reshape(-1, 3).mean(axis=0)) < GREY_TOLERANCE)


def clicks_in(answer: Response) -> dict[str, list[list[int]]]:
    body = answer.request.post_data or ""
    params = json.loads(body[body.index("{") : body.rindex("}") + 1])
    return (
        {name: params[name] for name in ("foreground", "background")}
        if params["background"]
        else {"foreground": params["foreground"]}
    )


def mask_in(answer: Response) -> Mask:
    file = io.BytesIO(answer.body())
    return nrrd.read_data(nrrd.read_header(file), file) > 0


def status_of(server: Server) -> tuple[int, int]:
    status = server.json("/info/")["datastore"]
    return status["total"], status["completed"]


def saved_label(server: Server) -> tuple[str, dict[str, int], npt.NDArray[np.uint8]]:
    """(series, values by name, label map (i, j, k)) of the one label that there is."""
    (series,) = (uid for uid, entry in server.json("/datastore/?output=all")["objects"].items() if entry["labels"])
    query = {"label": series, "tag": "final"}
    info = requests.get(f"{server.url}/datastore/label/info", params=query, timeout=60).json()
    content = requests.get(f"{server.url}/datastore/label", params=query, timeout=60).content
    voxels = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
    as_bytes = requests.get(f"{server.url}/datastore/label", params={**query, "output": "uint8"}, timeout=60).content
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(as_bytes)).dataobj), voxels)
    return series, {one["name"]: one["idx"] for one in info["label_info"]}, voxels
