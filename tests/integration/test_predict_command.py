"""``deepgrow3d predict``: clicks in a file become a mask in a file, without any server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from deepgrow3d_app.click.simulator import ClickSimulator

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher
    from tests.integration.phantom import Phantom, Reference

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
IMAGE = str(ROOT / "sample-data" / "studies" / "ct-trunk.nii.gz")


def option(index: tuple[int, ...] | list[int]) -> str:
    return ",".join(map(str, index))


def test_a_click_in_the_liver(launcher: Launcher, reference: Reference) -> None:
    liver, spleen = reference.structure("liver"), reference.structure("spleen")
    inside, outside = (
        ClickSimulator((3.0, 3.0, 3.0)).next_click(truth, np.zeros_like(truth)) for truth in (liver, spleen)
    )
    assert inside
    assert outside
    clicks = ["--foreground", option(inside.index), "--background", option(outside.index)]

    done = launcher.deepgrow3d("predict", IMAGE, *clicks, "--output", "liver.nii.gz")

    assert done.returncode == 0, done.stderr
    image = nib.Nifti1Image.from_filename(launcher.folder / "liver.nii.gz")
    mask = np.asarray(image.dataobj)
    assert mask.dtype == np.uint8
    assert mask.shape == reference.labels.shape
    assert np.allclose(image.affine, reference.affine, atol=1e-5)
    assert mask[inside.index] == 1
    assert mask[outside.index] == 0
    assert (liver & (mask > 0)).sum() > 0.5 * mask.sum()
    assert f"{mask.sum()} voxels" in done.stdout
    assert sorted(path.name for path in launcher.folder.iterdir()) == ["home", "liver.nii.gz", "tmp"]


def test_an_oblique_volume_as_nrrd(launcher: Launcher, phantom: Phantom) -> None:
    click = ["--foreground", option(phantom.centre), "--picture", "mask.png"]
    done = launcher.deepgrow3d("predict", str(phantom.file), *click, "--output", "mask.nrrd")
    assert done.returncode == 0, done.stderr
    mask, image = sitk.ReadImage(launcher.folder / "mask.nrrd"), sitk.ReadImage(phantom.file)
    assert mask.GetSize() == image.GetSize()
    assert np.allclose(mask.GetSpacing(), image.GetSpacing(), atol=1e-5)
    assert np.allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-3)
    assert np.allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
    voxels = sitk.GetArrayFromImage(mask).transpose()
    assert voxels[tuple(phantom.centre)] == 1
    assert (phantom.tissue & (voxels > 0)).sum() > 0.5 * voxels.sum()
    assert (launcher.folder / "mask.png").read_bytes().startswith(b"\x89PNG")


BAD_ARGUMENTS = {
    "click outside": ([IMAGE, "-f", "122,50,56"], 2, ("(122, 50, 56)", "(121, 100, 111)")),
    "background outside": ([IMAGE, "-f", "30,50,56", "-b", "30,50,112"], 2, ("(30, 50, 112)", "(121, 100, 111)")),
    "negative click": ([IMAGE, "--foreground=-1,50,56"], 2, ("(-1, 50, 56)", "(0, 0, 0)")),
    "both signs": ([IMAGE, "-f", "30,50,56", "-b", "30,50,56"], 2, ("(30, 50, 56)", "Remove")),
    "two numbers": ([IMAGE, "-f", "30,50"], 2, ("'30,50'", "I,J,K")),
    "no numbers": ([IMAGE, "-f", "a,b,c"], 2, ("'a,b,c'", "I,J,K")),
    "no image": (["missing.nii.gz", "-f", "1,1,1"], 2, ("missing.nii.gz", "no such file")),
    "another format": (["picture.png", "-f", "1,1,1"], 2, ("picture.png", ".nii.gz")),
    "no weights": ([IMAGE, "-f", "30,50,56", "--checkpoint", "none.safetensors"], 1, ("none.safetensors", "train one")),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_a_refusal_is_one_line_and_writes_nothing(launcher: Launcher, case: str) -> None:
    arguments, status, says = BAD_ARGUMENTS[case]
    done = launcher.deepgrow3d("predict", *arguments, "--output", "mask.nii.gz")
    assert done.returncode == status
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert [text for text in says if text not in done.stderr] == [], done.stderr
    assert not (launcher.folder / "mask.nii.gz").exists()


def test_an_output_that_cannot_be_written(launcher: Launcher, phantom: Phantom) -> None:
    arguments = ["predict", str(phantom.file), "-f", option(phantom.centre)]
    for option_name, output, says in (
        ("--output", "mask.png", ".nii.gz"),
        ("--output", "nowhere/mask.nii.gz", "nowhere"),
        ("--output=mask.nii.gz --picture", "mask.gif", ".png"),
    ):
        done = launcher.deepgrow3d(*arguments, *option_name.split(), output)
        assert done.returncode in (1, 2)
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert not (launcher.folder / output).exists()


HELP = {
    "": (
        "serve",
        "ohif",
        "predict",
        "prepare",
        "train",
        "evaluate",
        "compare",
        "model-card",
        "average",
        "join",
        "import-weights",
        "export",
        "retrain",
        "batch",
        "versions",
        "rollback",
    ),
    "serve": ("--studies", "--host", "--port", "--checkpoint", "3D Slicer", "DICOMweb"),
    "ohif": ("Orthanc", "--folder", "--port"),
    "predict": ("--foreground", "--background", "--output", "I,J,K", "DICOM"),
    "train": ("--output", "--minutes", "--steps", "--spec", "'seed'", "--resume", "--start-from", "torchrun"),
    "import-weights": ("deepgrow_3d", "--output", ".safetensors"),
    "export": ("--output", "MONAI bundle"),
    "evaluate": (
        "--structures",
        "--clicks",
        "--checkpoint",
        "structures.json",
        "--noisy",
        "--hands",
        "--server",
        "--method",
    ),
    "prepare": ("BTCV", "Decathlon", "--spacing", "--workers", "validation"),
    "compare": ("results.json", "bootstrap"),
    "average": ("--output", "training line"),
    "join": ("--output", "--mirrored", "one specification", "answer together", "mirror image"),
    "retrain": ("--epochs", "--force", "--resume", "--stop", "held-out"),
    "batch": ("--prompts", "--seeds-from", "--resume", "foreground"),
    "versions": ("--checkpoint",),
    "rollback": ("--version", "running server"),
    "model-card": ("--sources", "--output"),
}


@pytest.mark.parametrize("command", HELP)
def test_help_explains_the_command(launcher: Launcher, command: str) -> None:
    done = launcher.deepgrow3d(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert [text for text in HELP[command] if text not in done.stdout] == [], done.stdout


def test_every_command_is_listed_with_help(launcher: Launcher) -> None:
    from deepgrow3d_app.cli import app

    names = {info.name or info.callback.__name__.replace("_", "-") for info in app.registered_commands if info.callback}
    assert names == HELP.keys() - {""}


def test_the_image_is_never_overwritten_by_its_mask(launcher: Launcher, phantom: Phantom) -> None:
    before = phantom.file.read_bytes()
    done = launcher.deepgrow3d(
        "predict", str(phantom.file), "-f", option(phantom.centre), "--output", str(phantom.file)
    )
    assert done.returncode == 2
    assert "is the image itself" in done.stderr
    assert phantom.file.read_bytes() == before
