"""Where a labelled case lies on disk, and how it is read from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepgrow3d_app.cases.labelled_case import LabelledCase, structures_in
from deepgrow3d_app.cases.prepared_case import IMAGE_FILE, read_prepared_case
from deepgrow3d_app.volume.files import read_mask, read_volume
from deepgrow3d_app.volume.grid import check_grid


@dataclass(frozen=True, slots=True)
class CaseSource:
    """Where a case lies; nothing is read yet.

    Attributes:
        name: unique among the cases of one folder.
        patient: cases of one patient must stay on one side of a split. Equals ``name`` unless the layout
            says otherwise.
        image: a file, or a folder with one DICOM series; ``image.npy`` of a prepared case.
        labels: the file of the label map; ``labels.npy`` of a prepared case.
        names: structure name to label value; empty where the layout does not say.
    """

    name: str
    patient: str
    image: Path
    labels: Path
    names: Mapping[str, int]

    def load(self) -> LabelledCase:
        """The case, read from its two files; one that was prepared is mapped into memory instead.

        Raises:
            InvalidInput: a file is missing, damaged or not one 3-D image.
            LabelMismatch: the labels do not lie on the image's grid.
        """
        if self.image.name == IMAGE_FILE:
            return read_prepared_case(self.image.parent, self.name)
        volume = read_volume(self.image)
        labels, affine = read_mask(self.labels)
        check_grid(labels.shape, affine, volume, f"'{self.labels}'")
        return LabelledCase(self.name, volume, labels, structures_in(labels, self.names))
