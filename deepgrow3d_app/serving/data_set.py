"""The data set: every image that has a final label, with that label, in one zip archive."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from deepgrow3d_app.errors import NotFound
from deepgrow3d_app.serving.datastore import StudiesDatastore
from deepgrow3d_app.serving.identifiers import shown

FINAL = "final"
METADATA_FILE = "metadata.json"


def write_data_set(images: StudiesDatastore, file: Path, limit_cases: int | None) -> None:
    """Write the data set of ``images``, laid out as MONAI Label does it, into ``file``.

    The archive holds ``image/ID.nii.gz`` and ``label/ID.nii.gz`` of each case, and the index as ``metadata.json``.

    Args:
        images: the studies.
        file: it is overwritten; after an error it holds a part of them.
        limit_cases: at most so many cases; ``None`` for all.

    Raises:
        NotFound: no image has a final label, or the file of one is not there.
        ServerFault: the studies are on a DICOMweb server, which does not send one.
    """
    index = images.json()
    cases = [image_id for image_id, entry in index["objects"].items() if FINAL in entry["labels"]][:limit_cases]
    if not cases:
        raise NotFound(f"No image has a label '{FINAL}' yet, so there is nothing to download. Save a label first.")
    with zipfile.ZipFile(file, "w") as archive:  # stored as they are: most of them are compressed
        for image_id in cases:
            _write_case(images, image_id, archive)
        archive.writestr(METADATA_FILE, json.dumps(index, default=str))


def _write_case(images: StudiesDatastore, image_id: str, archive: zipfile.ZipFile) -> None:
    try:
        for folder, path in (
            ("image", images.image_download(image_id)),
            ("label", images.label_file(image_id, FINAL)),
        ):
            archive.write(path, f"{folder}/{path.name}")
    except (NotFound, FileNotFoundError) as error:
        raise NotFound(
            f"The data set is not complete: a file of {shown(image_id)} is missing from the studies. Put its image and "
            f"its label back, or remove its label '{FINAL}', then ask again."
        ) from error
