"""``deepgrow3d serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from deepgrow3d_app.cli.app import DEFAULT_CHECKPOINT, CheckpointOption, app


@app.command()
def serve(
    studies: Annotated[
        str,
        typer.Option(
            help="Folder of images (.nii, .nii.gz, .nrrd), labels go below it; or the address of a DICOMweb server, "
            "such as http://127.0.0.1:8042/dicom-web (credentials: MONAI_LABEL_DICOMWEB_USERNAME and _PASSWORD)."
        ),
    ] = ".data/studies",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
) -> None:
    """Answer clicks over REST, for 3D Slicer, OHIF and scripts."""
    from deepgrow3d_app.serving.launch import serve as launch

    launch(studies, host, port, checkpoint)
