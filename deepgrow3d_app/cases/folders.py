"""Which cases a folder holds, in whichever layout it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepgrow3d_app.cases.layouts.btcv import find_btcv
from deepgrow3d_app.cases.layouts.case_folder import find_case_folder, find_case_folders
from deepgrow3d_app.cases.layouts.decathlon import find_decathlon
from deepgrow3d_app.cases.layouts.manifest_file import find_manifest_file
from deepgrow3d_app.cases.layouts.paired_folders import find_paired_folders
from deepgrow3d_app.cases.layouts.prepared_folder import find_prepared_folder
from deepgrow3d_app.cases.layouts.studies import find_studies
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import InvalidInput, NotFound

LAYOUTS: tuple[tuple[Callable[[Path], list[CaseSource] | None], str], ...] = (
    (find_prepared_folder, "a folder that 'deepgrow3d prepare' wrote"),
    (find_manifest_file, "a .csv or .json file that lists image,labels[,name,patient]"),
    (find_case_folder, "image.nii.gz and labels.nii.gz (names in structures.json)"),
    (find_studies, "a MONAI Label studies folder with labels/final/"),
    (find_paired_folders, "images/ and labels/ with files of equal names"),
    (find_decathlon, "dataset.json, imagesTr/ and labelsTr/ (Medical Segmentation Decathlon)"),
    (find_btcv, "img/img0001.nii.gz and label/label0001.nii.gz (BTCV)"),
    (find_case_folders, "a folder of such case folders"),
)
"""Tried in this order: the first that recognises a folder reads it."""

MAX_SHOWN_ENTRIES = 5


def find_cases(folder: Path, held_out: int | None = None) -> list[CaseSource]:
    """The labelled cases of a folder, sorted by name; none of them is read yet.

    ==================  ================================================  =====================================
    layout              files                                             names of the structures
    ==================  ================================================  =====================================
    prepared            manifest.json, cases/NAME/image.npy, labels.npy   in each case.json
    manifest file       a .csv or .json that lists the files              in the .json; structures.json by a .csv
    case folder         image.nii.gz, labels.nii.gz                       structures.json
    MONAI Label         ID.nii.gz, labels/final/ID.nii.gz                 datastore_v2.json
    paired folders      images/NAME.nii.gz, labels/NAME.nii.gz            structures.json or dataset.json
    Decathlon           dataset.json, imagesTr/, labelsTr/                dataset.json
    BTCV                img/img0001.nii.gz, label/label0001.nii.gz        the 13 organs of the challenge
    many case folders   NAME/image.nii.gz, NAME/labels.nii.gz             NAME/structures.json
    ==================  ================================================  =====================================

    For ``.nii.gz``, read any format of an image; an image of the second, third, fifth and last kind may also be
    a folder with a DICOM series. Where no names are given, values are called ``label 1``, ``label 2``.

    Args:
        folder: see above; a file in the second layout.
        held_out: keep only the last ``held_out`` cases by name: those that training leaves out.

    Raises:
        NotFound: no such folder, none of these layouts, or nothing labelled in it.
        InvalidInput: a list or a file of names is damaged, two cases have one name, or more are to be held
            out than there are.
    """
    if not folder.exists():
        raise NotFound(f"There is no folder '{folder}'. Name an existing one that holds labelled cases.")
    found = next((cases for find, _ in LAYOUTS if (cases := find(folder)) is not None), None)
    if found is None:
        raise _unknown_layout(folder)
    if not found:
        raise NotFound(f"'{folder}' lists no labelled case. Add cases to it.")
    cases = sorted(found, key=lambda case: case.name)
    if held_out is None:
        return cases
    if not 1 <= held_out <= len(cases):
        raise InvalidInput(
            f"The last {held_out} cases of '{folder}' cannot be held out: it has {len(cases)}. "
            f"Choose a number from 1 to {len(cases)}."
        )
    return cases[-held_out:]


def _unknown_layout(folder: Path) -> NotFound:
    known = "; ".join(text for _, text in LAYOUTS)
    if not folder.is_dir():
        return NotFound(f"'{folder.name}' lists no labelled cases. Name one of these: {known}.")
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    shown = ", ".join(entries[:MAX_SHOWN_ENTRIES]) or "nothing"
    more = f" and {len(entries) - MAX_SHOWN_ENTRIES} more" if len(entries) > MAX_SHOWN_ENTRIES else ""
    return NotFound(f"No labelled cases in '{folder}': it holds {shown}{more}. Lay it out as one of: {known}.")
