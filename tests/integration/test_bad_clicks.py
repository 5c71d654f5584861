"""Clicks that cannot be answered are refused with a reason, and leave every file as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.bad_input import CLICKS, LIVER, Files, assert_refused

if TYPE_CHECKING:
    from tests.integration.launcher import Server
    from tests.integration.phantom import Phantom

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("nothing_is_written")]

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


def test_no_image_at_all(server: Server) -> None:
    assert_refused(server.infer(CLICKS), 400, "no image", "session_id=ID")


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
