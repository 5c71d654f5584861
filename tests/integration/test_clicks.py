"""The main job over HTTP: clicks in a study become its mask, sessions come and go, labels are kept."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import requests
import SimpleITK as sitk
from requests_toolbelt import MultipartDecoder

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.evaluation.metrics import Reference as Truth
from deepgrow3d_app.evaluation.protocol import annotate, perfect_user
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.serving.compatibility import prepare_imports
from deepgrow3d_app.volume.files import read_volume
from deepgrow3d_app.volume.volume import Mask, Volume
from tests.integration.conftest import nifti, voxels_of

if TYPE_CHECKING:
    from tests.integration.conftest import Launcher, Phantom, Reference, Server

# MONAI Label's client leaves its connections and files to the garbage collector.
leaky_client = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
IMAGE = "ct-trunk"
ORGANS = {
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
}


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Any:
    """MONAI Label's own client."""
    prepare_imports()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports cgi
        from monailabel.client import MONAILabelClient
    return MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="annotator")


@pytest.fixture
def new_study(server: Server, phantom: Phantom) -> Iterator[str]:
    """The id of a study of this test's own: the phantom."""
    files = {"file": ("phantom.nii.gz", phantom.file.read_bytes())}
    response = server.request("PUT", "/datastore/image", params={"image": "new study"}, files=files)
    assert response.json() == {"image": "new study"}
    yield "new study"
    assert server.request("DELETE", "/datastore/image", params={"id": "new study"}).ok


def deepest_voxel(truth: npt.NDArray[np.bool_]) -> list[int]:
    """Where the protocol clicks first, on the grid of ct-trunk."""
    click = ClickSimulator((3.0, 3.0, 3.0)).next_click(truth, np.zeros_like(truth))
    assert click is not None
    return list(click.index)


def assert_same_grid(file: Path, image: Path) -> npt.NDArray[np.uint8]:
    """The voxels (i, j, k) of the mask ``file``, which must be a binary uint8 image on the grid of ``image``."""
    mask, expected = sitk.ReadImage(file), sitk.ReadImage(image)
    assert mask.GetSize() == expected.GetSize()
    assert np.allclose(mask.GetSpacing(), expected.GetSpacing(), atol=1e-5)
    assert np.allclose(mask.GetOrigin(), expected.GetOrigin(), atol=1e-3)
    assert np.allclose(mask.GetDirection(), expected.GetDirection(), atol=1e-6)
    voxels: npt.NDArray[np.uint8] = sitk.GetArrayFromImage(mask).transpose()
    assert voxels.dtype == np.uint8
    assert voxels.max() == 1
    return voxels


class ThroughClient:
    """The server as a segmentation method, called the way 3D Slicer calls it; every answer is checked."""

    record = MethodRecord("server", {})

    def __init__(self, client: Any, image: Path, label: str) -> None:
        self.client = client
        self.image = image
        self.label = label

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        params = {
            "label": self.label,
            "foreground": [list(click.index) for click in clicks if click.is_positive],
            "background": [list(click.index) for click in clicks if not click.is_positive],
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
        }
        file, answer = self.client.infer("deepgrow3d", IMAGE, params)
        assert file.endswith(".nrrd")
        mask = assert_same_grid(Path(file), self.image)
        assert all(mask[click.index] == click.is_positive for click in clicks)
        assert answer["label_names"] == {self.label: 1}
        assert answer["latencies"]["total"] >= 0
        centroid = [round(float(indices.mean())) for indices in np.nonzero(mask)]
        assert answer["centroids"] == {self.label: [str(position) for position in centroid]}
        return mask


def test_info_says_what_viewers_read(server: Server) -> None:
    info = server.json("/info/")
    assert info["name"] == "DeepGrow 3D"
    assert {re.sub("[_ ]+", " ", label) for label in info["labels"]} >= ORGANS
    model = info["models"]["deepgrow3d"]
    assert (model["type"], model["dimension"]) == ("deepgrow", 3)
    assert set(model["labels"]) == set(info["labels"])
    assert set(info["strategies"]) == {"first", "random", "uncertain"}
    assert {"version", "description", "trainers", "scoring", "train_stats"} <= set(info)
    assert (info["datastore"]["total"], info["datastore"]["completed"]) == (4, 1)
    assert info["datastore"]["label_tags"] == {"final": 1}


@leaky_client
def test_the_client_finds_info_and_no_sign_in(client: Any, server: Server) -> None:
    assert client.info() == server.json("/info/")
    assert client.auth_enabled() is False


@leaky_client
@pytest.mark.parametrize("structure", ["liver", "spleen"])
def test_five_clicks_segment_an_organ(client: Any, server: Server, reference: Reference, structure: str) -> None:
    image = server.studies / "ct-trunk.nii.gz"
    method = ThroughClient(client, image, structure)
    volume, truth = read_volume(image), reference.structure(structure)
    answers = annotate(method, volume, Truth(truth, volume.spacing_mm), perfect_user(volume), 5)
    rounds = [round_ for round_, _ in answers]
    assert rounds[0].index == tuple(deepest_voxel(truth))
    assert rounds[-1].dice >= 0.6


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


def test_any_name_of_a_structure_will_do(server: Server, reference: Reference) -> None:
    params = {"label": "Läsion 7", "foreground": [deepest_voxel(reference.structure("liver"))], "background": []}
    assert server.infer(params, image=IMAGE, output="json").json()["label_names"] == {"Läsion 7": 1}


def test_a_background_click_is_obeyed(server: Server, reference: Reference) -> None:
    foreground = deepest_voxel(reference.structure("liver"))
    before = server.mask(IMAGE, [foreground])
    inside = np.argwhere(before)
    background = inside[np.linalg.norm(inside - foreground, axis=1).argmax()].tolist()
    after = server.mask(IMAGE, [foreground], [background])
    assert before[tuple(background)] == 1
    assert after[tuple(background)] == 0
    assert after[tuple(foreground)] == 1


def test_the_same_clicks_give_the_same_mask(server: Server, reference: Reference) -> None:
    clicks = [deepest_voxel(reference.structure(name)) for name in ("liver", "stomach")]
    first = server.mask(IMAGE, [clicks[0]], [clicks[1]], client_id="one")
    assert np.array_equal(server.mask(IMAGE, [clicks[0]], [clicks[1]], client_id="one"), first)
    # Nothing is remembered for the other one, so this mask is computed anew.
    assert np.array_equal(server.mask(IMAGE, [clicks[0]], [clicks[1]], client_id="other"), first)


def test_undo_gives_exactly_the_mask_from_before(server: Server, reference: Reference) -> None:
    liver, stomach = (deepest_voxel(reference.structure(name)) for name in ("liver", "stomach"))
    spleen = deepest_voxel(reference.structure("spleen"))
    first = server.mask(IMAGE, [liver], label="undo")
    second = server.mask(IMAGE, [liver], [stomach], label="undo")
    third = server.mask(IMAGE, [liver, spleen], [stomach], label="undo")
    assert not np.array_equal(third, second)
    assert np.array_equal(server.mask(IMAGE, [liver], [stomach], label="undo"), second)
    assert np.array_equal(server.mask(IMAGE, [liver], label="undo"), first)


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


@leaky_client
def test_a_session_lives_until_it_is_deleted(client: Any, server: Server, phantom: Phantom) -> None:
    before = server.files()
    session_id = client.create_session(str(phantom.file))["session_id"]
    params = {
        "label": "tissue",
        "foreground": [phantom.centre],
        "background": [[2, 2, 2]],
        "result_extension": ".nii.gz",
    }
    file, _ = client.infer("deepgrow3d", "whatever the viewer calls it", params, session_id=session_id)
    mask = assert_same_grid(Path(file), phantom.file)
    assert mask[tuple(phantom.centre)] == 1
    assert mask[2, 2, 2] == 0
    assert (phantom.tissue & (mask > 0)).sum() > 0.5 * mask.sum()
    image = server.request("GET", f"/session/{session_id}", params={"image": "true"})
    assert image.content == phantom.file.read_bytes()
    assert client.get_session(session_id)["name"] == session_id
    assert IMAGE in server.json("/datastore/?output=all")["objects"]
    assert len(server.json("/datastore/?output=all")["objects"]) == 4

    client.remove_session(session_id)

    assert server.request("GET", f"/session/{session_id}").status_code == 404
    gone = server.infer(params, session_id=session_id)
    assert gone.status_code == 404
    assert session_id in gone.json()["detail"]
    assert server.files() == before


def test_an_image_can_come_with_the_click(server: Server, phantom: Phantom) -> None:
    params = {"foreground": [phantom.centre], "background": [], "result_extension": ".nrrd", "result_compress": False}
    stored = server.infer(params, image="labelled", output="image")
    before = server.files()
    sent = server.infer(params, files={"file": ("ct.nii.gz", phantom.file.read_bytes())}, output="image")
    assert sent.content == stored.content
    assert server.files() == before


def as_nifti(phantom: Phantom, folder: Path) -> bytes:
    return phantom.label_file


def as_nrrd(phantom: Phantom, folder: Path) -> bytes:
    image = sitk.GetImageFromArray(phantom.label.transpose())
    image.CopyInformation(sitk.ReadImage(phantom.file))
    sitk.WriteImage(image, folder / "label.nrrd", True)
    return (folder / "label.nrrd").read_bytes()


def as_raw_bytes(phantom: Phantom, folder: Path) -> bytes:
    return phantom.label.tobytes(order="F")


@pytest.mark.parametrize(
    ("name", "encode"), [("label.nii.gz", as_nifti), ("label.nrrd", as_nrrd), ("label.bin", as_raw_bytes)]
)
def test_a_saved_label_comes_back_voxel_for_voxel(
    server: Server,
    phantom: Phantom,
    new_study: str,
    tmp_path: Path,
    name: str,
    encode: Callable[[Phantom, Path], bytes],
) -> None:
    before = server.json("/info/")["datastore"]

    names = {1: "liver", 2: "spleen", 3: "aorta", 4: "stomach"}
    saved = server.save_label(new_study, name, encode(phantom, tmp_path), names=names)

    assert saved.json() == {"image": new_study, "label": new_study, "version": 1, "notice": None}
    back = server.request("GET", "/datastore/label", params={"label": new_study, "tag": "final"})
    assert 'filename="' in back.headers["content-disposition"] or "filename*=" in back.headers["content-disposition"]
    (tmp_path / "back.nii.gz").write_bytes(back.content)
    image = nib.Nifti1Image.from_filename(tmp_path / "back.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), phantom.label)
    assert np.allclose(image.affine, phantom.affine, atol=1e-4)
    after = server.json("/info/")["datastore"]
    assert (after["total"], after["completed"]) == (before["total"], before["completed"] + 1)
    assert after["label_tags"] == {"final": before["label_tags"]["final"] + 1}
    assert set(server.json("/datastore/?output=all")["objects"][new_study]["labels"]) == {"final"}
    info = server.request("GET", "/datastore/label/info", params={"label": new_study, "tag": "final"}).json()
    assert info["label_info"] == [{"name": text, "idx": value} for value, text in names.items()]


@leaky_client
def test_the_client_saves_a_mask_and_is_handed_the_next_image(
    client: Any, server: Server, phantom: Phantom, new_study: str, tmp_path: Path
) -> None:
    assert client.next_sample("first", {})["id"] != "labelled"
    params = {"label": "tissue", "foreground": [phantom.centre], "background": [], "result_extension": ".nii.gz"}
    file, _ = client.infer("deepgrow3d", new_study, params)
    client.save_label(new_study, file, params={"label_info": [{"name": "tissue", "idx": 1}]})
    back = client.download_label(new_study, "final")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(back)), sitk.GetArrayFromImage(sitk.ReadImage(file)))
    assert client.info()["datastore"]["completed"] == 2
    unlabelled = {client.next_sample("random", {})["id"] for _ in range(20)}
    assert unlabelled <= {IMAGE, "truncated", "four-dimensional"}


def test_a_label_of_another_tag_is_no_final_one(server: Server, phantom: Phantom, new_study: str) -> None:
    assert server.save_label(new_study, "label.nii.gz", phantom.label_file, tag="second opinion").ok
    datastore = server.json("/info/")["datastore"]
    assert datastore["completed"] == 1
    assert datastore["label_tags"] == {"final": 1, "second opinion": 1}
    assert server.request("HEAD", "/datastore/label", params={"image": new_study, "tag": "final"}).status_code == 404


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


def test_whoever_opened_an_image_that_was_replaced_since_is_told(
    server: Server, phantom: Phantom, new_study: str
) -> None:
    def etag() -> str:
        tagged = server.request("GET", "/datastore/image", params={"image": new_study}).headers["etag"]
        return tagged.removeprefix('"').removesuffix('"')

    def click(etag: str) -> requests.Response:
        params = {"foreground": [phantom.centre], "background": [], "image_etag": etag}
        return server.infer(params, image=new_study, output="json")

    def save(etag: str) -> requests.Response:
        files = {"label": ("l.nii.gz", phantom.label_file), "params": (None, json.dumps({"image_etag": etag}))}
        return server.request("PUT", "/datastore/label", params={"image": new_study}, files=files)

    opened = etag()
    assert click(opened).ok
    other = nifti(voxels_of(phantom.file.read_bytes())[::-1], phantom.affine)
    files = {"file": ("other.nii.gz", other)}
    assert server.request("PUT", "/datastore/image", params={"image": new_study}, files=files).ok
    for refused in (click(opened), save(opened)):
        assert refused.status_code == 409
        assert refused.json()["detail"] == f"The image '{new_study}' was replaced since it was opened. Open it again."
    assert server.request("HEAD", f"/datastore/label?image={new_study}&tag=final").status_code == 404
    assert click(etag()).ok
    assert save(etag()).ok


def test_both_launchers_serve_the_same_thing(launcher: Launcher, server: Server, reference: Reference) -> None:
    shutil.copytree(ROOT / "apps", launcher.folder / "apps")
    shutil.copytree(ROOT / "sample-data" / "studies", launcher.folder / "studies")
    launcher.settings["DEEPGROW3D_ENGINE"] = "auto"
    other = launcher.start_server(launcher.folder / "studies", "apps/deepgrow3d")
    other.wait_until_openvino_computes()
    click = deepest_voxel(reference.structure("spleen"))
    assert other.json("/info/")["models"] == server.json("/info/")["models"]
    assert np.array_equal(other.mask(IMAGE, [click]), server.mask(IMAGE, [click]))


def test_what_a_click_took_is_in_the_answer_and_in_the_metrics(server: Server, reference: Reference) -> None:
    click = deepest_voxel(reference.structure("liver"))
    answer = server.infer(
        {"label": "timed", "foreground": [click], "background": []}, image=IMAGE, output="json"
    ).json()
    assert {"queue", "read", "pre", "infer", "invert", "write", "total"} <= set(answer["latencies"])
    assert answer["queue_position"] == 0
    assert "OpenVINO" in answer["device"]
    metrics = server.request("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'deepgrow3d_click_seconds_bucket{le="0.5",stage="infer"}' in metrics.text
    assert re.search(r'deepgrow3d_clicks_total\{outcome="answered"\} [1-9]', metrics.text)


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


def test_a_newer_click_takes_the_place_of_those_that_wait(server: Server, reference: Reference) -> None:
    """Impatient hands click five times: what is answered last is all that anybody needs."""
    voxels = np.argwhere(reference.structure("liver"))[::2000][:8].tolist()
    asked = [voxels[: n + 1] for n in range(len(voxels))]

    def ask(points: list[list[int]]) -> requests.Response:
        params = {"label": "hasty", "client_id": "hasty", "foreground": points, "background": []}
        return server.infer(params, image=IMAGE, output="json")

    with ThreadPoolExecutor(len(asked)) as hands:
        answers = list(hands.map(ask, asked))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 409}
    assert statuses.count(200) >= 1
    assert all("newer click" in answer.json()["detail"] for answer in answers if answer.status_code == 409)
    assert ask(asked[-1]).status_code == 200


def test_after_a_kill_clicks_are_answered_as_before(launcher: Launcher, reference: Reference) -> None:
    shutil.copytree(ROOT / "sample-data" / "studies", launcher.folder / "studies")
    clicks = [deepest_voxel(reference.structure(name)) for name in ("liver", "spleen", "stomach")]
    launcher.settings["DEEPGROW3D_ENGINE"] = "auto"
    first = launcher.serve(launcher.folder / "studies")
    first.wait_until_openvino_computes()
    masks = [first.mask(IMAGE, clicks[: n + 1], label="killed") for n in range(2)]
    expected = first.mask(IMAGE, clicks, label="killed")
    first.kill()
    second = launcher.serve(launcher.folder / "studies")
    second.wait_until_openvino_computes()
    assert np.array_equal(second.mask(IMAGE, clicks, label="killed"), expected)
    assert np.array_equal(second.mask(IMAGE, clicks[:1], label="killed"), masks[0])
    assert np.array_equal(second.mask(IMAGE, clicks[:2], label="killed"), masks[1])
