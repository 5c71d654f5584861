"""The Medical Segmentation Decathlon: ``dataset.json`` lists the pairs of ``imagesTr/`` and ``labelsTr/``."""

from __future__ import annotations

from pathlib import Path

from deepgrow3d_app.cases.layouts.image_files import stem_of
from deepgrow3d_app.cases.layouts.structure_names import DATASET_FILE, names_from_dataset, read_object
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.errors import InvalidInput, UnreadableVolume


def find_decathlon(folder: Path) -> list[CaseSource] | None:
    """The training cases of a task; its test images have no labels.

    Several channels (``Task01_BrainTumour``) are refused when the case is loaded.

    Raises:
        UnreadableVolume: ``dataset.json`` is damaged.
        InvalidInput: a label value outside 1 to 255, or two pairs whose images have one name.
    """
    file = folder / DATASET_FILE
    if not file.is_file():
        return None
    content = read_object(file)
    if "training" not in content:
        return None
    names = names_from_dataset(content, file)
    try:
        pairs = [(Path(entry["image"]), Path(entry["label"])) for entry in content["training"]]  # type: ignore[attr-defined]
    except (TypeError, KeyError) as error:
        raise UnreadableVolume(
            str(file),
            f"its 'training' is no list of pairs ({type(error).__name__}: {error})",
            'Write {"training": [{"image": FILE, "label": FILE}]}.',
        ) from error
    cases: dict[str, CaseSource] = {}
    for image, label in pairs:
        if image.name.startswith("._"):  # macOS's companions were packed, and listed, with some tasks
            continue
        case = CaseSource(stem_of(image), stem_of(image), folder / image, folder / label, names)
        if case.name in cases:
            raise InvalidInput(
                f"'{file}' lists '{cases[case.name].image}' and '{case.image}', which would both be the case "
                f"'{case.name}'. Remove or rename one of them."
            )
        cases[case.name] = case
    return list(cases.values())
