"""``deepgrow3d serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app.cli.app import ServedOption, app


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
    checkpoint: ServedOption = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="Whose tokens are good; everybody has to sign in then (see `deepgrow3d token`)."),
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate for HTTPS, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM, where the certificate's file has it not.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines call although nobody signs in.")
    ] = False,
) -> None:
    """Answer clicks over REST, for 3D Slicer, OHIF and scripts."""
    from deepgrow3d_app.serving.compatibility import check_settings

    check_settings()  # before MONAI Label is imported with them
    from deepgrow3d_app.serving.preflight import Access, check_start

    access = Access(tokens, tls_certificate, tls_key, insecure)
    check_start(studies, host, port, access)  # before what takes seconds to import
    from deepgrow3d_app.serving.launch import serve as launch

    launch(studies, host, port, checkpoint, access=access)
