"""What cannot be answered is refused with a reason, and leaves every file as it was."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import requests
from safetensors.numpy import save as save_safetensors

if TYPE_CHECKING:
    from tests.integration.conftest import Phantom, Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LIVER = [30, 50, 56]
CLICKS = {"foreground": [LIVER], "background": []}
GRID = np.diag([3.0, 3.0, 3.0, 1.0])

LEAST_DISTINCT = 200

Fingerprint = dict[Path, str | None]

REFUSED: set[tuple[str | None, str | None, str]] = set()
"""Method, address and content of everything that was refused so far."""


@dataclass
class Files:
    """Everything that the server could write to: its working folder, its app folder."""

    folders: tuple[Path, ...]
    known: Fingerprint = field(default_factory=dict)

    def fingerprint(self) -> Fingerprint:
        """A hash of every file but the audit log, which tells of refusals; ``None`` for a folder."""
        paths = [
            path
            for folder in self.folders
            for path in folder.rglob("*")
            if "__pycache__" not in path.parts and "audit" not in path.parts
        ]
        return {path: None if path.is_dir() else hash_of(path) for path in paths}


def hash_of(path: Path) -> str:
    status = path.stat()
    return hash_of_version(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def hash_of_version(path: Path, *version: int) -> str:
    """Nothing can change a file and leave its time of change as it was, so it is read once."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def files(server: Server) -> Files:
    for image in server.json("/datastore/?output=all")["objects"]:
        server.infer(CLICKS, image=image)  # what is decoded for the first time is kept on disk
    files = Files((server.folder, ROOT / "apps"))
    files.known = files.fingerprint()
    return files


@pytest.fixture(autouse=True)
def nothing_is_written(server: Server, files: Files) -> Iterator[None]:
    """Around every test: the same files with the same content after it, and a server that still answers."""
    before = files.known
    yield
    files.known = files.fingerprint()
    changed = sorted(
        path for path in before.keys() | files.known.keys() if before.get(path, "") != files.known.get(path, "")
    )
    assert changed == []
    assert server.json("/info/")["datastore"]["total"] == 4


def assert_refused(response: requests.Response, status: int, *says: str) -> None:
    """The answer is JSON, ``{"detail": reason}``, and the reason holds all of ``says``."""
    request = response.request
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    boundary = (request.headers.get("content-type") or "").rpartition("boundary=")[2].encode() or b"\0"
    REFUSED.add((request.method, request.url, hashlib.sha256(body.replace(boundary, b"")).hexdigest()))
    assert response.status_code == status, response.text
    answer = response.json()
    assert set(answer) == {"detail"}
    detail = answer["detail"]
    assert isinstance(detail, str)
    assert [text for text in says if text not in detail] == [], detail
    assert "Traceback" not in detail


def nifti(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64] = GRID) -> bytes:
    """The bytes of an uncompressed .nii file."""
    content: bytes = nib.Nifti1Image(voxels, affine).to_bytes()
    return content


# --- Clicks ---------------------------------------------------------------------------------------------------------

BOUND = "(121, 100, 111)"
VOXEL = "[i, j, k]"
WHOLE = "whole numbers"
BAD_PARAMS: dict[str, tuple[Any, ...]] = {
    # one coordinate
    "NaN": ('{"foreground": [[NaN, 1, 2]], "background": []}', "NaN", "finite"),
    "infinity": ('{"foreground": [[Infinity, 1, 2]], "background": []}', "Infinity", "finite"),
    "minus infinity": ('{"foreground": [[1, -Infinity, 2]], "background": []}', "-Infinity", "finite"),
    "overflow": ('{"foreground": [[1e999, 1, 2]], "background": []}', "1e999"),
    "text": ({"foreground": [["12", 1, 2]], "background": []}, "'12'", WHOLE),
    "word": ({"foreground": [[1, "liver", 2]], "background": []}, "'liver'", WHOLE),
    "boolean": ({"foreground": [[True, 1, 2]], "background": []}, "True", WHOLE),
    "null": ({"foreground": [[1, None, 2]], "background": []}, "None", WHOLE),
    "fraction": ({"foreground": [[1.5, 2, 3]], "background": []}, "1.5", WHOLE),
    "nested": ({"foreground": [[[1], 2, 3]], "background": []}, "[1]", WHOLE),
    "huge": ({"foreground": [[10**400, 2, 3]], "background": []}, WHOLE),
    "huge float": ({"foreground": [[1e300, 2, 3]], "background": []}, "1e+300", WHOLE),
    # one click
    "2-D click": ({"foreground": [[61, 50]], "background": []}, "[61, 50]", VOXEL),
    "4-D click": ({"foreground": [[61, 50, 56, 1]], "background": []}, "[61, 50, 56, 1]", VOXEL),
    "empty click": ({"foreground": [[]], "background": []}, "[]", VOXEL),
    "click as text": ({"foreground": ["61,50,56"], "background": []}, "'61,50,56'", VOXEL),
    "click as object": ({"foreground": [{"i": 61}], "background": []}, "61", VOXEL),
    "flat list": ({"foreground": LIVER, "background": []}, "30", VOXEL),
    # a list of clicks
    "list as text": ({"foreground": "[[30, 50, 56]]", "background": []}, "'foreground'", "[[30, 50, 56]]"),
    "list as object": ({"foreground": {"0": LIVER}, "background": []}, "'foreground'", "[[i, j, k], ...]"),
    "no clicks": ({"foreground": [], "background": []}, "foreground click", "at least one"),
    "background only": ({"foreground": [], "background": [LIVER]}, "foreground click", "at least one"),
    "no foreground": ({"background": [LIVER]}, "'foreground' is missing", '"foreground": []'),
    "no background": ({"foreground": [LIVER]}, "'background' is missing", '"background": []'),
    "background null": ({"foreground": [LIVER], "background": None}, "'background' is missing", '"background": []'),
    "too many clicks": ({"foreground": [LIVER] * 1001, "background": []}, "1001", "1000"),
    "both signs": ({"foreground": [LIVER], "background": [LIVER]}, "(30, 50, 56)", "Remove"),
    # where there is no voxel
    "negative i": ({"foreground": [[-1, 50, 56]], "background": []}, "(-1, 50, 56)", BOUND),
    "negative k": ({"foreground": [[30, 50, -1]], "background": []}, "(30, 50, -1)", BOUND),
    "beyond i": ({"foreground": [[122, 50, 56]], "background": []}, "(122, 50, 56)", BOUND),
    "beyond j": ({"foreground": [[30, 101, 56]], "background": []}, "(30, 101, 56)", BOUND),
    "beyond k": ({"foreground": [[30, 50, 112]], "background": []}, "(30, 50, 112)", BOUND),
    "far outside": ({"foreground": [[2**31, 50, 56]], "background": []}, "2147483648", BOUND),
    "second of two outside": ({"foreground": [LIVER, [30, 50, 999]], "background": []}, "(30, 50, 999)", BOUND),
    "background outside": ({"foreground": [LIVER], "background": [[0, 0, 112]]}, "(0, 0, 112)", BOUND),
    # params
    "params a list": ([CLICKS], "'params'", "JSON object"),
    "params a string": ('"foreground"', "'params'", "JSON object"),
    "params a number": ("3", "'params' is '3'", "JSON object"),
    "params null": ("null", "'params' is 'null'", "JSON object"),
    "params cut off": ('{"foreground": [[30, 50', "'params'", "no valid JSON"),
    "params no JSON": ("foreground=30", "'foreground=30'", "no valid JSON"),
    "params empty": ("", "'foreground' is missing"),
    "params deep": ('{"a":' * 40 + "1" + "}" * 40, "'params'", "32"),
    "params very deep": ("[" * 100_000, "'params'", "32"),
    "lone surrogate": (
        '{"label": "\\ud800", "foreground": [[30, 50, 56]], "background": []}',
        "'params'",
        "surrogates",
    ),
    "label a number": ({**CLICKS, "label": 7}, "'label' is 7", "text"),
    "label too long": ({**CLICKS, "label": "x" * 201}, "'label'", "200"),
    "client_id a list": ({**CLICKS, "client_id": ["me"]}, "'client_id'", "text"),
    "unknown format": ({**CLICKS, "result_extension": ".exe"}, "'.exe'", ".nrrd"),
    "format is a path": ({**CLICKS, "result_extension": "/../../mask.nrrd"}, "/../../mask.nrrd", ".nii.gz"),
    "format a list": ({**CLICKS, "result_extension": [".nrrd"]}, "'result_extension'", ".nii.gz"),
    "unknown dtype": ({**CLICKS, "result_dtype": "float32"}, "'float32'", "'uint8'"),
    "dtype a list": ({**CLICKS, "result_dtype": ["uint8"]}, "'result_dtype'", "'uint8'"),
    "compress as text": ({**CLICKS, "result_compress": "false"}, "'result_compress'", "true or false"),
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_bad_clicks_and_params(server: Server, case: str) -> None:
    params, *says = BAD_PARAMS[case]
    assert_refused(server.infer(params, image="ct-trunk"), 400, *says)


def test_a_session_has_the_same_rules(server: Server, phantom: Phantom, files: Files) -> None:
    created = server.request("PUT", "/session/", files={"files": ("ct.nii.gz", phantom.file.read_bytes())}).json()
    response = server.infer({"foreground": [[30, 0, 0]], "background": []}, session_id=created["session_id"])
    assert_refused(response, 400, "(30, 0, 0)", "(29, 35, 21)")
    assert server.request("DELETE", f"/session/{created['session_id']}").ok


# --- Names ----------------------------------------------------------------------------------------------------------


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


def test_no_image_at_all(server: Server) -> None:
    assert_refused(server.infer(CLICKS), 400, "no image", "session_id=ID")


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


# --- Files ----------------------------------------------------------------------------------------------------------


def not_finite() -> bytes:
    voxels = np.zeros((6, 7, 8), np.float32)
    voxels[0, 0, :2] = (np.nan, np.inf)
    return nifti(voxels)


def lying_header() -> bytes:
    content = bytearray(nifti(np.zeros((6, 7, 8), np.int16)))
    content[42:48] = np.array([30000, 30000, 30000], np.int16).tobytes()
    return bytes(content)


def singular_affine() -> bytes:
    content = bytearray(nifti(np.zeros((6, 7, 8), np.int16)))
    content[280:296] = bytes(16)  # srow_x
    return bytes(content)


BAD_VOLUMES: dict[str, tuple[str, Callable[[], bytes], tuple[str, ...]]] = {
    "text": ("ct.nii.gz", lambda: b"this is no image", ("not gzip",)),
    "empty": ("ct.nii", lambda: b"", ("Check that",)),
    "cut off": ("ct.nii", lambda: nifti(np.zeros((9, 9, 9), np.int16))[:-100], ("Check that the file is complete",)),
    "4-D": ("ct.nii", lambda: nifti(np.zeros((4, 5, 6, 2), np.int16)), ("4 dimensions", "one 3-D image")),
    "2-D": ("ct.nii", lambda: nifti(np.zeros((4, 5), np.int16)), ("3-D",)),
    "not finite": ("ct.nii", not_finite, ("2 of its 336 voxels", "Replace them")),
    "singular affine": ("ct.nii", singular_affine, ("affine", "Repair")),
    "promises 54 TB": ("ct.nii", lying_header, ("30000 x 30000 x 30000", "at most")),
    "NRRD inside NIfTI": ("ct.nii", lambda: b"NRRD0004\ntype: short\n\n", ("Check that",)),
    "NIfTI inside NRRD": ("ct.nrrd", lambda: nifti(np.zeros((6, 7, 8), np.int16)), ("NRRD",)),
    "NRRD elsewhere": (
        "ct.nrrd",
        lambda: b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n",
        ("ct.nrrd",),
    ),
    "PNG": ("ct.png", lambda: b"\x89PNG\r\n", ()),
    "no extension": ("ct", lambda: nifti(np.zeros((6, 7, 8), np.int16)), ()),
    "segmentation": ("ct.seg.nrrd", lambda: b"NRRD0004\n", (".nrrd",)),
}


@pytest.mark.parametrize("case", BAD_VOLUMES)
def test_upload_that_is_no_volume(server: Server, case: str) -> None:
    name, content, says = BAD_VOLUMES[case]
    says = tuple(text for text in says if text != "ct.nrrd")
    files = {"file": (name, content())}
    assert_refused(server.request("PUT", "/datastore/image", params={"image": "new"}, files=files), 400, *says)
    assert_refused(server.request("PUT", "/session/", files={"files": (name, content())}), 400, *says)
    assert_refused(server.infer(CLICKS, files=files), 400, *says)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("truncated", ("truncated.nii.gz", "complete")),
        ("four-dimensional", ("four-dimensional.nii.gz", "4 dimensions")),
    ],
)
def test_study_that_is_no_volume(server: Server, phantom: Phantom, image: str, says: tuple[str, ...]) -> None:
    assert_refused(server.infer(CLICKS, image=image), 400, *says)
    assert_refused(server.save_label(image, "label.nii.gz", phantom.label_file), 400, *says)
    assert_refused(server.save_label(image, "label.bin", b"\0" * 120), 400, *says)


def test_image_in_place_of_one_with_a_label(server: Server) -> None:
    files = {"file": ("ct.nii", nifti(np.zeros((6, 7, 8), np.int16)))}
    response = server.request("PUT", "/datastore/image", params={"image": "labelled"}, files=files)
    assert_refused(response, 400, "'labelled'", "'final'", "6 x 7 x 8", "Choose another image id")


@pytest.mark.parametrize("params", ["[]", '"x"', '{"a": NaN}', "{"])
def test_params_of_an_image_that_are_no_object(server: Server, phantom: Phantom, params: str) -> None:
    files = {"file": ("ct.nii.gz", phantom.file.read_bytes()), "params": (None, params)}
    response = server.request("PUT", "/datastore/image", params={"image": "new"}, files=files)
    assert_refused(response, 400, "'params'")


@pytest.mark.parametrize("info", ["[]", '"x"', '{"a": Infinity}', "{"])
def test_info_that_is_no_object(server: Server, info: str) -> None:
    places = (("image", {"image": "ct-trunk"}), ("label", {"label": "labelled", "tag": "final"}))
    for path, query in places:
        response = server.request("PUT", f"/datastore/{path}/info", params=query, data={"info": info})
        assert_refused(response, 400, "'info'")


def two_volumes(phantom: Phantom) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{n}.nii.gz", phantom.file.read_bytes())) for n in range(2)]


def zip_of(**members: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return archive.getvalue()


def test_session_with_two_volumes(server: Server, phantom: Phantom) -> None:
    assert_refused(server.request("PUT", "/session/", files=two_volumes(phantom)), 400, "2 files", "one image")


def test_session_without_files(server: Server) -> None:
    assert_refused(server.request("PUT", "/session/"), 422, "body.files")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"no zip", "zip file", id="no zip"),
        pytest.param(zip_of(), "no image", id="empty"),
        pytest.param(zip_of(**{"../../../evil.nii.gz": b"junk"}), "not gzip", id="climbing"),
        pytest.param(zip_of(**{"/tmp/evil.nii": b"junk"}), "image.nii", id="absolute"),
        pytest.param(zip_of(**{"a.txt": b"junk", "b.txt": b"junk"}), "DICOM", id="no image"),
        pytest.param(zip_of(**{"a.nii": b"x" * 5000})[:-60], "zip file", id="cut off"),
    ],
)
def test_session_from_a_bad_archive(server: Server, content: bytes, says: str) -> None:
    files = {"files": ("series.zip", content)}
    assert_refused(server.request("PUT", "/session/", params={"uncompress": "true"}, files=files), 400, says)


@pytest.mark.parametrize("expiry", ["-1", "soon", "1e400"])
def test_session_that_expires_at_no_time(server: Server, phantom: Phantom, expiry: str) -> None:
    files = {"files": ("ct.nii.gz", phantom.file.read_bytes())}
    response = server.request("PUT", "/session/", params={"expiry": expiry}, files=files)
    assert_refused(response, 422, "query.expiry", repr(expiry))


# --- Labels ---------------------------------------------------------------------------------------------------------


def other_shape(phantom: Phantom) -> bytes:
    return nifti(phantom.label[:-1], phantom.affine)


def other_axis_order(phantom: Phantom) -> bytes:
    return nifti(phantom.label.transpose(1, 0, 2), phantom.affine[:, [1, 0, 2, 3]])


def other_place(phantom: Phantom) -> bytes:
    moved = phantom.affine.copy()
    moved[0, 3] += 3
    return nifti(phantom.label, moved)


def other_values(phantom: Phantom) -> bytes:
    return nifti(phantom.label.astype(np.float32) / 2, phantom.affine)


def below_zero(phantom: Phantom) -> bytes:
    return nifti(phantom.label.astype(np.int16) - 1, phantom.affine)


def too_large_values(phantom: Phantom) -> bytes:
    return nifti(phantom.label.astype(np.int16) * 100, phantom.affine)


def cut_off(phantom: Phantom) -> bytes:
    return phantom.label_file[:300]


def one_byte_short(phantom: Phantom) -> bytes:
    return phantom.label.tobytes()[1:]


def one_byte_over(phantom: Phantom) -> bytes:
    return phantom.label.tobytes() + b"\0"


def sixteen_bits(phantom: Phantom) -> bytes:
    return phantom.label.astype(np.uint16).tobytes()


def four_dimensional(phantom: Phantom) -> bytes:
    return nifti(np.stack([phantom.label] * 2, axis=3), phantom.affine)


def garbage(phantom: Phantom) -> bytes:
    return b"garbage"


def nothing(phantom: Phantom) -> bytes:
    return b""


BAD_LABELS = [
    pytest.param("label.nii.gz", garbage, ("not gzip",), id="garbage"),
    pytest.param("label.nii", garbage, ("complete",), id="garbage, not compressed"),
    pytest.param("label.nrrd", garbage, ("NRRD",), id="garbage as NRRD"),
    pytest.param("label.seg.nrrd", garbage, ("NRRD",), id="garbage as segmentation"),
    pytest.param("label.bin", garbage, ("7 bytes", "23760 voxels"), id="garbage as raw bytes"),
    pytest.param("label.nii.gz", nothing, ("not gzip",), id="empty"),
    pytest.param("label.bin", nothing, ("0 bytes", "23760 voxels"), id="empty raw bytes"),
    pytest.param("label.nii.gz", cut_off, ("Check that the file is complete",), id="cut off"),
    pytest.param("label.bin", one_byte_short, ("23759 bytes", "30 x 36 x 22"), id="a byte short"),
    pytest.param("label.bin", one_byte_over, ("23761 bytes", "30 x 36 x 22"), id="a byte over"),
    pytest.param("label.bin", sixteen_bits, ("47520 bytes", "30 x 36 x 22"), id="two bytes a voxel"),
    pytest.param("label.nii", other_shape, ("29 x 36 x 22", "30 x 36 x 22"), id="another shape"),
    pytest.param("label.nii", other_axis_order, ("36 x 30 x 22", "30 x 36 x 22"), id="another axis order"),
    pytest.param("label.nii", other_place, ("voxels from its image", "geometry"), id="another place"),
    pytest.param("label.nii", other_values, (".5", "whole numbers"), id="fractions"),
    pytest.param("label.nii", below_zero, ("-1", "from 0"), id="below zero"),
    pytest.param("label.nii", too_large_values, ("255",), id="beyond a byte"),
    pytest.param("label.nii", four_dimensional, ("4 dimensions", "one 3-D image"), id="4-D"),
    pytest.param("label.json", garbage, ("'label.json'", ".seg.nrrd"), id="another format"),
    pytest.param("label", garbage, ("'label'", ".seg.nrrd"), id="no format"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD_LABELS)
def test_label_that_does_not_fit(
    server: Server, phantom: Phantom, name: str, content: Callable[[Phantom], bytes], says: tuple[str, ...]
) -> None:
    earlier = server.request("GET", "/datastore/label", params={"label": "labelled", "tag": "final"})
    assert_refused(server.save_label("labelled", name, content(phantom)), 400, *says)
    assert_refused(server.save_label("labelled", name, content(phantom), tag="second opinion"), 400, *says)
    kept = server.request("GET", "/datastore/label", params={"label": "labelled", "tag": "final"})
    assert kept.content == earlier.content == phantom.label_file


@pytest.mark.parametrize("params", ["[]", '"x"', '{"label_info": NaN}', "{"])
def test_params_of_a_label_that_are_no_object(server: Server, phantom: Phantom, params: str) -> None:
    files = {"label": ("label.nii.gz", phantom.label_file), "params": (None, params)}
    response = server.request("PUT", "/datastore/label", params={"image": "labelled"}, files=files)
    assert_refused(response, 400, "'params'")


def test_no_label_in_the_request(server: Server) -> None:
    assert_refused(server.request("PUT", "/datastore/label", params={"image": "labelled"}), 422, "body.label")


def test_previous_mask_of_another_shape(server: Server, phantom: Phantom) -> None:
    files = {"label": ("label.nii", other_shape(phantom))}
    response = server.infer({"foreground": [phantom.centre], "background": []}, files=files, image="labelled")
    assert_refused(response, 400, "29 x 36 x 22", "30 x 36 x 22")


# --- Weights --------------------------------------------------------------------------------------------------------


def other_program() -> bytes:
    return save_safetensors({"weight": np.zeros(3, np.float32)})


def shipped() -> bytes:
    return (ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors").read_bytes()


def weights_cut_off() -> bytes:
    return shipped()[:-1000]


def weights_with_nan() -> bytes:
    content = bytearray(shipped())
    content[-2:] = np.array([np.nan], np.float16).tobytes()
    return bytes(content)


BAD_WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "garbage": (lambda: b"garbage", "safetensors"),
    "empty": (lambda: b"", "safetensors"),
    "pickle": (lambda: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.", "safetensors"),
    "of another program": (other_program, "another program"),
    "cut off": (weights_cut_off, "safetensors"),
    "not finite": (weights_with_nan, "not finite"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_cannot_be_served(server: Server, case: str) -> None:
    content, says = BAD_WEIGHTS[case]
    response = server.request("PUT", "/model/deepgrow3d", files={"file": ("model.pt", content())})
    assert_refused(response, 400, "cannot be served", says, "Send a checkpoint of DeepGrow 3D")


def test_the_served_weights_cannot_be_deleted(server: Server) -> None:
    assert_refused(server.request("DELETE", "/model/deepgrow3d"), 400, "'deepgrow3d'", "PUT /model/deepgrow3d")


# --- Everything else ------------------------------------------------------------------------------------------------


def test_outputs_that_there_are_not(server: Server) -> None:
    assert_refused(server.infer(CLICKS, image="ct-trunk", output="zip"), 422, "query.output", "'zip'", "'image'")
    assert_refused(server.infer(CLICKS, image="ct-trunk", output="dicom_seg"), 400, "dicom_seg", "output=image")
    assert_refused(server.request("GET", "/datastore/", params={"output": "everything"}), 422, "'everything'", "'all'")


@pytest.mark.parametrize(
    "body", [b"zzz", b"--x\r\nnonsense\r\n--x--", b"--x\r\n"], ids=["text", "no header", "cut off"]
)
def test_a_body_that_is_no_multipart(server: Server, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = server.request("POST", "/infer/deepgrow3d?image=ct-trunk", data=body, headers=headers)
    assert 400 <= response.status_code < 500
    assert isinstance(response.json()["detail"], str)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"max_epochs": 0}, "'max_epochs' is 0"),
        ({"deepgrow3d": {"max_epochs": "many"}}, "'max_epochs' is 'many'"),
        ({"learning_rate": -1}, "'learning_rate' is -1"),
        ({"train_batch_size": 1e9}, "'train_batch_size'"),
    ],
)
def test_a_training_that_cannot_be_done(server: Server, order: dict[str, Any], says: str) -> None:
    assert_refused(server.request("POST", "/train/deepgrow3d", json=order), 400, says)


def test_a_training_that_is_not_there(server: Server) -> None:
    assert_refused(server.request("POST", "/train/other", json={}), 404, "'other'", "'deepgrow3d'")
    assert_refused(server.request("POST", "/train/deepgrow3d", json={"resume": True}), 404, "Start one")
    assert_refused(server.request("GET", "/train/"), 404, "No training")
    assert_refused(server.request("GET", "/train/?check_if_running=true"), 404, "No training")
    assert_refused(server.request("DELETE", "/train/"), 404, "No training")


@pytest.mark.parametrize(
    ("order", "status", "says"),
    [
        ({}, 400, "Say where to click"),
        ({"prompts": {"ct-trunk": {"liver": {"foreground": []}}}}, 400, "prompts.ct-trunk.liver.foreground"),
        ({"prompts": {"none": {"liver": {"foreground": [[1, 1, 1]]}}}}, 404, "There is no image 'none'"),
        ({"seeds_from": "no such tag"}, 404, "that has a label 'no such tag'"),
        ({"resume": True}, 404, "Start one"),
    ],
)
def test_a_pre_annotation_that_cannot_be_done(server: Server, order: dict[str, Any], status: int, says: str) -> None:
    assert_refused(server.request("POST", "/batch/infer/deepgrow3d", json=order), status, says)
    assert_refused(server.request("GET", "/batch/infer/"), 404, "No pre-annotation")
    assert_refused(server.request("DELETE", "/batch/infer/"), 404, "No pre-annotation")


def test_versions_that_are_not_there(server: Server) -> None:
    assert_refused(server.request("POST", "/model/rollback/deepgrow3d?version=9"), 404, "no version 9")
    assert_refused(server.request("GET", "/model/versions/other"), 404, "'deepgrow3d'")
    assert_refused(server.request("GET", "/datastore/label/version?label=ct-trunk&version=3"), 404, "no version 3")
    assert_refused(server.request("GET", "/datastore/label/versions?label=none"), 404, "There is no image 'none'")


def test_values_that_nothing_names(server: Server, phantom: Phantom) -> None:
    saved = server.save_label("labelled", "label.nii.gz", phantom.label_file, names={1: "liver", 2: "spleen"})
    assert_refused(saved, 400, "voxels of the value 3, 4, and label_info names only 1, 2")


def test_what_is_needed_is_named(server: Server) -> None:
    assert_refused(server.request("GET", "/datastore/image"), 422, "query.image", "required")
    assert_refused(
        server.request("DELETE", "/datastore/label", params={"id": "labelled"}), 422, "query.tag", "required"
    )


# --- All of them ----------------------------------------------------------------------------------------------------


def test_how_many_distinct_bad_inputs_were_refused(request: pytest.FixtureRequest) -> None:
    functions = {item.originalname for item in request.session.items if item.path == Path(__file__)}  # type: ignore[attr-defined]
    if functions != {name for name in globals() if name.startswith("test_")}:
        pytest.skip("only some of them were sent")
    print(f"{len(REFUSED)} distinct bad inputs were refused, each with a reason")
    assert len(REFUSED) >= LEAST_DISTINCT
