"""One mask in all its forms: for curl, for OHIF, for scripts, and in every format of a file."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from requests_toolbelt import MultipartDecoder

from tests.integration.conftest import ROOT
from tests.integration.trunk import IMAGE, assert_same_grid, deepest_voxel

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher, Server
    from tests.integration.phantom import Reference

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_the_printed_curl_command_makes_a_mask(server: Server, launcher: Launcher) -> None:
    printed = re.search(r"curl -X POST .*?'params=.*?'\n", server.log.read_text(), re.DOTALL)
    assert printed
    answer = launcher.run(["sh", "-c", printed[0]])
    assert answer.returncode == 0, answer.stderr
    click = json.loads(printed[0].split("params=")[1].strip()[:-1])["foreground"][0]
    image = re.search(r"image=([\w-]+)", printed[0])
    assert image
    mask = assert_same_grid(launcher.folder / "mask.nii.gz", server.studies / f"{image[1]}.nii.gz")
    assert mask[tuple(click)] == 1


def test_the_curl_commands_of_the_readme_make_a_mask(server: Server, launcher: Launcher) -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if "curl " in line and "/infer/" in line]
    assert commands
    for command in commands:
        answer = launcher.run(["sh", "-c", command.replace("http://127.0.0.1:8000", server.url)])
        assert answer.returncode == 0, answer.stderr
    for mask in (path for path in launcher.folder.iterdir() if path.is_file()):
        assert_same_grid(mask, server.studies / "ct-trunk.nii.gz")
    assert [path for path in launcher.folder.iterdir() if path.is_file()]


def test_curl_segments_what_was_clicked(server: Server, reference: Reference, tmp_path: Path) -> None:
    liver = reference.structure("liver")
    click = deepest_voxel(liver)
    params = {"foreground": [click], "background": [], "result_extension": ".nii.gz"}
    url = f"{server.url}/infer/deepgrow3d?image={IMAGE}&output=image"
    command = [
        "curl",
        "--silent",
        "--fail",
        "-X",
        "POST",
        url,
        "-F",
        f"params={json.dumps(params)}",
        "-o",
        "mask.nii.gz",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    mask = assert_same_grid(tmp_path / "mask.nii.gz", server.studies / "ct-trunk.nii.gz")
    assert mask[tuple(click)] == 1
    assert np.allclose(nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz").affine, reference.affine, atol=1e-5)
    assert (liver & (mask > 0)).sum() > 0.5 * mask.sum()


def test_ohif_gets_raw_voxels_in_the_order_of_the_series(server: Server, reference: Reference) -> None:
    click = deepest_voxel(reference.structure("spleen"))
    params = {
        "foreground": [click],
        "background": [],
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
        "result_compress": False,
        "restore_label_idx": False,
    }
    plain = server.infer(params, image=IMAGE, output="image")
    header, _, raw = plain.content.partition(b"\n\n")
    assert header.startswith(b"NRRD")
    assert b"encoding: raw" in header
    assert len(raw) == reference.labels.size
    mask = np.frombuffer(raw, np.uint8).reshape(reference.labels.shape, order="F")
    assert mask[tuple(click)] == 1

    parts = MultipartDecoder.from_response(server.infer({**params, "result_compress": True}, image=IMAGE)).parts
    assert [re.findall(rb'\bname="(\w+)"', part.headers[b"Content-Disposition"]) for part in parts] == [
        [b"params"],
        [b"image"],
    ]
    assert set(json.loads(parts[0].content)) >= {"label_names", "latencies", "centroids"}
    packed = parts[1].content
    assert len(packed) < len(raw)
    assert np.array_equal(read_nrrd(packed), mask)


def read_nrrd(content: bytes) -> npt.NDArray[Any]:
    import io

    import nrrd

    file = io.BytesIO(content)
    return nrrd.read_data(nrrd.read_header(file), file)


def test_json_alone_tells_where_the_structure_is(server: Server, reference: Reference) -> None:
    click = deepest_voxel(reference.structure("spleen"))
    answer = server.infer(
        {"label": "spleen", "foreground": [click], "background": []}, image=IMAGE, output="json"
    ).json()
    mask = server.mask(IMAGE, [click], label="spleen")
    assert answer["label_names"] == {"spleen": 1}
    assert answer["centroids"] == {"spleen": [str(round(float(indices.mean()))) for indices in np.nonzero(mask)]}


@pytest.mark.parametrize("extension", [".nii", ".nrrd", ".seg.nrrd"])
def test_every_format_holds_the_same_mask(server: Server, reference: Reference, tmp_path: Path, extension: str) -> None:
    click = deepest_voxel(reference.structure("spleen"))
    params = {"foreground": [click], "background": [], "result_extension": extension}
    response = server.infer(params, image=IMAGE, output="image")
    assert response.headers["content-disposition"].endswith(f'{extension}"')
    file = tmp_path / f"mask{extension}"
    file.write_bytes(response.content)
    mask = assert_same_grid(file, server.studies / "ct-trunk.nii.gz")
    assert np.array_equal(mask, server.mask(IMAGE, [click]))


def test_where_voxels_lie_is_told_as_clicks_are_understood(server: Server) -> None:
    """Of a header whose two forms contradict each other, viewers would choose the other one."""
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), 1)
    image.set_sform(np.diag([-2.0, 3.0, 4.0, 1.0]), 2)
    files = {"file": ("forms.nii", image.to_bytes())}
    assert server.request("PUT", "/datastore/image", params={"image": "forms"}, files=files).ok
    told = server.json("/datastore/image/geometry?image=forms")
    assert told == {"shape": [4, 5, 6], "spacing_mm": [2, 3, 4], "affine": np.diag([2, 3, 4, 1]).tolist()}
    answer = server.infer({"foreground": [[1, 1, 1]], "background": []}, image="forms", output="image")
    stored = nib.Nifti1Image.from_bytes(answer.content)
    np.testing.assert_allclose(stored.affine, told["affine"])
    assert server.request("DELETE", "/datastore/image?id=forms").ok
    assert server.request("GET", "/datastore/image/geometry?image=forms").status_code == 404


def test_a_script_gets_the_mask_by_its_box(server: Server, reference: Reference) -> None:
    click = deepest_voxel(reference.structure("spleen"))
    params = {"label": "compact", "foreground": [click], "background": []}
    packed = server.infer(params, image=IMAGE, output="compact")
    answer = packed.json()
    bits = np.unpackbits(np.frombuffer(gzip.decompress(base64.b64decode(answer["bits"])), np.uint8))
    mask = np.zeros(answer["shape"], np.uint8)
    box = tuple(slice(start, start + n) for start, n in zip(answer["start"], answer["extents"], strict=True))
    mask[box] = bits[: np.prod(answer["extents"])].reshape(answer["extents"])
    assert np.array_equal(mask, server.mask(IMAGE, [click], label="compact"))
    assert answer["params"]["label_names"] == {"compact": 1}
