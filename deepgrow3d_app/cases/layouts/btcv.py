"""Beyond the Cranial Vault (BTCV, Synapse): ``img/img0001.nii.gz`` and ``label/label0001.nii.gz``."""

from __future__ import annotations

from pathlib import Path

from deepgrow3d_app.cases.layouts.image_files import image_files, label_files
from deepgrow3d_app.cases.source import CaseSource

BTCV_NAMES = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior vena cava": 9,
    "portal and splenic veins": 10,
    "pancreas": 11,
    "right adrenal gland": 12,
    "left adrenal gland": 13,
}
"""The organs of the challenge, with the values that its label files hold."""


def find_btcv(folder: Path) -> list[CaseSource] | None:
    """A case for each number in ``img/`` or ``label/``: where a partner is missing, loading the case says so."""
    if not ((folder / "img").is_dir() and (folder / "label").is_dir()):
        return None
    images = {stem.removeprefix("img"): path for stem, path in image_files(folder / "img").items()}
    labels = {stem.removeprefix("label"): path for stem, path in label_files(folder / "label").items()}
    return [
        CaseSource(
            f"img{number}",
            f"img{number}",
            images.get(number, folder / "img" / f"img{number}.nii.gz"),
            labels.get(number, folder / "label" / f"label{number}.nii.gz"),
            BTCV_NAMES,
        )
        for number in sorted(images.keys() | labels.keys())
    ]
