"""Names of nothing, and names that nothing can have, are refused with a reason, and leave every file as it was."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.integration.bad_input import CLICKS, REFUSED, assert_refused

if TYPE_CHECKING:
    from tests.integration.launcher import Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("nothing_is_written")]

LEAST_DISTINCT = 200


@pytest.mark.parametrize("model", ["segmentation", "deepgrow3d.safetensors", "DEEPGROW3D", "%20"])
def test_unknown_model(server: Server, model: str) -> None:
    name = unquote(model)
    assert_refused(server.infer(CLICKS, image="ct-trunk", model=model), 404, repr(name), "'deepgrow3d'")
    for path in (f"/model/{model}", f"/model/info/{model}"):
        assert_refused(server.request("GET", path), 404, repr(name), "'deepgrow3d'")
    assert_refused(server.request("PUT", f"/model/{model}", files={"file": ("m.pt", b"x")}), 404, "'deepgrow3d'")


@pytest.mark.parametrize(
    "session_id",
    [
        "abc",
        "92281222-8101-488b-85cf-998ab9de27c4",
        "../studies",
        "..",
        "/etc",
        "{92281222-8101-488b-85cf-998ab9de27c4}",
        "a\x00b",
    ],
)
def test_unknown_session(server: Server, session_id: str) -> None:
    remedy = "PUT /session/"
    assert_refused(server.infer(CLICKS, session_id=session_id), 404, repr(session_id), remedy)
    # A session that is gone must not quietly become another image.
    assert_refused(server.infer(CLICKS, session_id=session_id, image="ct-trunk"), 404, repr(session_id), remedy)
    if "/" not in session_id and session_id != "..":
        assert_refused(server.request("GET", f"/session/{session_id}"), 404, remedy)
        assert_refused(server.request("DELETE", f"/session/{session_id}"), 404, remedy)


@pytest.mark.parametrize("strategy", ["tta", "Random", "__init__"])
def test_unknown_strategy(server: Server, strategy: str) -> None:
    response = server.request("POST", f"/activelearning/{strategy}", json={})
    assert_refused(response, 404, repr(strategy), "first, random")


@pytest.mark.parametrize("body", ["[1]", '"first"', "3", "{"])
def test_strategy_params_that_are_no_object(server: Server, body: str) -> None:
    headers = {"content-type": "application/json"}
    response = server.request("POST", "/activelearning/first", data=body, headers=headers)
    assert_refused(response, 422, "body")


UNKNOWN_IMAGES = {
    "unknown": "nope",
    "another case": "CT-TRUNK",
    "file name": "ct-trunk.nii.gz",
    "index": "datastore_v2.json",
    "relative path": "../studies/ct-trunk",
    "relative file": "../studies/ct-trunk.nii.gz",
    "dotted": "./ct-trunk",
    "absolute": "/etc/passwd",
    "absolute, of an image": "{studies}/ct-trunk.nii.gz",
    "absolute, without extension": "{studies}/ct-trunk",
    "file URL": "file://{studies}/ct-trunk.nii.gz",
    "encoded": "..%2Fstudies%2Fct-trunk",
    "encoded absolute": "%2Fetc%2Fpasswd",
    "backslashes": "..\\studies\\ct-trunk",
    "label": "labels/final/labelled",
    "folder": "labels",
    "NUL": "ct-trunk\x00",
    "line break": "ct-trunk\n",
    "blank": " ",
}


@pytest.mark.parametrize("case", UNKNOWN_IMAGES)
def test_image_that_is_not_among_the_studies(server: Server, phantom: Phantom, case: str) -> None:
    image = UNKNOWN_IMAGES[case].replace("{studies}", str(server.studies))
    listing = "GET /datastore/?output=all"
    assert_refused(server.infer(CLICKS, image=image), 404, listing)
    for path in ("/datastore/image", "/datastore/image/info"):
        assert_refused(server.request("GET", path, params={"image": image}), 404, listing)
    assert_refused(server.request("GET", "/datastore/label", params={"label": image, "tag": "final"}), 404, listing)
    assert_refused(server.request("DELETE", "/datastore/image", params={"id": image}), 404, listing)
    assert_refused(server.save_label(image, "label.nii.gz", phantom.label_file), 404, listing)
    response = server.request("PUT", "/datastore/image/info", params={"image": image}, data={"info": "{}"})
    assert_refused(response, 404, listing)


@pytest.mark.parametrize(
    "path",
    [
        "/session/../studies",
        "/session/..%2Fstudies",
        "/session/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/infer/..%2Fdeepgrow3d?image=ct-trunk",
        "/model/..%2F..%2Fapps",
        "/datastore/../../../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/nothing",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_paths_that_climb(server: Server, method: str, path: str) -> None:
    """Sent as they are: other clients tidy them up first."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert answer.status == 404
    assert "/openapi.json" in body["detail"]


def test_a_method_that_a_path_has_not(server: Server) -> None:
    assert_refused(server.request("PUT", "/info/"), 405, "PUT", "/info/", "/openapi.json")


BAD_TAGS = {
    "climbing": "../../evil",
    "climbing far": "../../../../../../../../tmp/evil",
    "folder": "a/b",
    "parent": "..",
    "absolute": "/tmp/evil",
    "hidden": ".hidden",
    "backslashes": "..\\evil",
    "encoded": "..%2Fevil",
    "NUL": "final\x00",
    "line break": "final\n",
    "long": "x" * 300,
    "blank": " ",
    "letters of two bytes": "é" * 65,
}


@pytest.mark.parametrize("case", BAD_TAGS)
def test_tag_that_cannot_be_a_folder(server: Server, phantom: Phantom, case: str) -> None:
    tag = BAD_TAGS[case]
    response = server.save_label("labelled", "label.nii.gz", phantom.label_file, tag=tag)
    assert_refused(response, 400, "label's tag", "Use letters")
    listing = "GET /datastore/?output=all"
    for method, name in (("GET", "label"), ("DELETE", "id")):
        response = server.request(method, "/datastore/label", params={name: "labelled", "tag": tag})
        assert_refused(response, 404, listing)
    response = server.request(
        "PUT", "/datastore/label/info", params={"label": "labelled", "tag": tag}, data={"info": "{}"}
    )
    assert_refused(response, 404, listing)


BAD_IDS = {
    "climbing": "../evil",
    "absolute": "/tmp/evil",
    "folder": "a/b",
    "parent": "..",
    "hidden": ".hidden",
    "backslash": "a\\b",
    "line break": "a\nb",
    "NUL": "a\x00b",
    "shell": "$(touch evil)",
    "markup": "<b>",
    "long": "x" * 300,
}


@pytest.mark.parametrize("case", BAD_IDS)
def test_id_that_cannot_be_a_file_name(server: Server, phantom: Phantom, case: str) -> None:
    files = {"file": ("ct.nii.gz", phantom.file.read_bytes())}
    response = server.request("PUT", "/datastore/image", params={"image": BAD_IDS[case]}, files=files)
    assert_refused(response, 400, "image id", "Use letters")


@pytest.mark.parametrize("name", ["../../..nii.gz", ".nii.gz", "a;b.nii.gz"])
def test_file_name_that_cannot_become_an_id(server: Server, phantom: Phantom, name: str) -> None:
    response = server.request("PUT", "/datastore/image", files={"file": (name, phantom.file.read_bytes())})
    assert_refused(response, 400, "image id", "Use letters")


def test_how_many_distinct_bad_inputs_were_refused(request: pytest.FixtureRequest) -> None:
    functions = {item.originalname for item in request.session.items if item.path == Path(__file__)}  # type: ignore[attr-defined]
    if functions != {name for name in globals() if name.startswith("test_")}:
        pytest.skip("only some of them were sent")
    print(f"{len(REFUSED)} distinct bad inputs were refused, each with a reason")
    assert len(REFUSED) >= LEAST_DISTINCT
