"""``deepgrow3d predict``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepgrow3d_app.cli.app import DEFAULT_CHECKPOINT, CheckpointOption, app, check_output, console
from deepgrow3d_app.errors import InvalidRequest

if TYPE_CHECKING:
    from deepgrow3d_app.click.click import Click


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="A .nii, .nii.gz or .nrrd file, or a folder with a DICOM series.")],
    foreground: Annotated[
        list[str], typer.Option("--foreground", "-f", help="A click inside the structure: voxel I,J,K. Repeatable.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the mask goes (.nii, .nii.gz or .nrrd).")],
    background: Annotated[
        list[str] | None, typer.Option("--background", "-b", help="A click outside of it: voxel I,J,K. Repeatable.")
    ] = None,
    previous: Annotated[Path | None, typer.Option(help="The mask before the latest click.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw the mask on three slices (.png).")] = None,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
) -> None:
    """Turn clicks into a mask, without any server.

    Clicks are voxel indices of the stored image, from 0, in the axis order of the file.
    """
    import numpy as np

    from deepgrow3d_app.volume.files import EXTENSIONS, read_mask, read_volume, write_mask
    from deepgrow3d_app.volume.geometry import voxel_ml
    from deepgrow3d_app.volume.grid import check_grid

    clicks = [*_clicks(foreground, True), *_clicks(background or [], False)]
    check_output(output, EXTENSIONS)
    real_image = Path(os.path.realpath(image))  # Path.resolve would raise where links lead in a circle
    if Path(os.path.realpath(output)) in (real_image, *real_image.glob("*")):
        raise InvalidRequest(f"'{output}' is the image itself. Write the mask to another file.")
    if picture is not None:
        check_output(picture, (".png",))
    from deepgrow3d_app.model.predictor import Predictor  # seconds, after what is quickly refused

    with console.status("reading"):
        volume = read_volume(image)
        before = None
        if previous is not None:
            before, before_affine = read_mask(previous)
            check_grid(before.shape, before_affine, volume, f"'{previous}'")
            if len(values := np.unique(before[before > 0])) > 1:
                raise InvalidRequest(
                    f"'{previous}' holds {len(values)} structures. Give the mask of one, whose voxels have one value."
                )
        predictor = Predictor.from_checkpoint(checkpoint)
    with console.status("segmenting"):
        prediction = predictor.predict(volume, clicks, before)
    write_mask(prediction.mask, volume.affine, output)
    voxels = int(prediction.mask.sum())
    seconds = prediction.crop_s + prediction.network_s + prediction.restore_s
    console.print(
        f"{output}: {voxels} voxels, {voxels * voxel_ml(volume.affine):.1f} ml, in {seconds:.2f} s "
        f"({prediction.passes} passes on {prediction.device})",
        soft_wrap=True,
    )
    if picture is not None:
        from deepgrow3d_app.evaluation.picture import draw_mask

        draw_mask(volume, prediction.mask, clicks, picture)
        console.print(
            f"{picture}: mask in red, foreground clicks blue, background clicks orange; titles give the stored index",
            soft_wrap=True,
        )


def _clicks(texts: list[str], is_positive: bool) -> list[Click]:
    from deepgrow3d_app.click.click import Click

    clicks = []
    for text in texts:
        try:
            i, j, k = (int(part) for part in text.split(","))
        except ValueError as error:
            raise InvalidRequest(
                f"'{text}' is no click. Write three voxel indices as I,J,K, for example 61,50,70."
            ) from error
        clicks.append(Click((i, j, k), is_positive))
    return clicks
