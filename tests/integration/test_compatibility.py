"""MONAI Label imports and works with the packages that are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deepgrow3d_app.serving.compatibility import prepare_imports

pytestmark = pytest.mark.integration


def last_line(code: str) -> str:
    """The last line that ``code`` prints in an interpreter of its own."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1]


def test_the_server_imports_without_touching_the_network() -> None:
    paths = last_line(
        """
import socket

def refuse(*args, **kwargs):
    raise AssertionError(f"network at import: {args}")

socket.socket.connect = socket.getaddrinfo = refuse
import deepgrow3d_app.serving
import monailabel.app
print(*monailabel.app.app.openapi()["paths"])
"""
    )
    assert {"/info/", "/infer/{model}", "/datastore/label", "/train/{model}"} <= set(paths.split())


def test_the_serving_folder_alone_imports_no_heavy_package() -> None:
    heavy = last_line(
        "import sys, deepgrow3d_app.serving; print({'torch', 'monai', 'monailabel', 'fastapi'} & set(sys.modules))"
    )
    assert heavy == "set()"


def test_preparing_twice_installs_one_finder() -> None:
    prepare_imports()
    finders = list(sys.meta_path)
    prepare_imports()
    assert sys.meta_path == finders


def test_a_stand_in_is_not_taken_for_the_real_package() -> None:
    import monailabel.app  # noqa: F401
    from monai.data.image_reader import has_itk

    assert {"itk", "pydicom_seg", "girder_client"}.isdisjoint(sys.modules)
    assert not has_itk


def test_what_stands_in_says_that_it_is_absent() -> None:
    from monailabel.datastore import dsa

    with pytest.raises(ImportError, match=r"girder_client\.GirderClient.*not available"):
        dsa.girder_client.GirderClient(apiUrl="http://localhost")


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
def test_monai_label_writes_images_through_simpleitk(tmp_path: Path, extension: str) -> None:
    import SimpleITK as sitk
    from monailabel.transform.writer import write_itk

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() @ np.diag([0.7, 0.8, 2.5])
    affine[:3, 3] = [5, -6, 7]
    label = np.random.default_rng(0).integers(0, 5, (6, 7, 8)).astype(np.uint8)

    write_itk(label, str(tmp_path / f"label{extension}"), affine, None, True)

    image = sitk.ReadImage(tmp_path / f"label{extension}")
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(), label)
    sitk.WriteImage(image, tmp_path / "same.nii")
    assert np.allclose(nib.Nifti1Image.from_filename(tmp_path / "same.nii").affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("MONAI_LABEL_SERVER_PORT", "MONAI_LABEL_SERVER_PORT is 'many': Input should be a valid integer"),
        ("MONAI_LABEL_CORS_ORIGINS", "Write its lists and tables in JSON"),
    ],
)
def test_a_setting_of_monai_label_that_cannot_be_used_is_told_in_a_line(variable, told, tmp_path):
    serve = [sys.executable, "-m", "deepgrow3d_app", "serve", "--studies", str(tmp_path)]
    done = subprocess.run(serve, env={**os.environ, variable: "many"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert variable in done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
