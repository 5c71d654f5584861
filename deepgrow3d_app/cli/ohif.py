"""``deepgrow3d ohif``."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app.cli.app import ServedOption, app, console

SAMPLES = Path(__file__).parents[2] / "sample-data"


@app.command()
def ohif(
    folder: Annotated[Path, typer.Option(help="Holds Orthanc's database and what the server keeps.")] = Path(
        ".data/ohif"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    checkpoint: ServedOption = None,
) -> None:
    """Try OHIF: start Orthanc with two sample CTs and the server in front of it, and print the address to open.

    Orthanc listens on this machine only. Ctrl+C ends both; labels are kept in FOLDER.
    """
    from deepgrow3d_app.serving.compatibility import check_settings
    from deepgrow3d_app.serving.preflight import check_address

    check_settings()  # before MONAI Label is imported with them
    check_address(host, port)  # before Orthanc is started for nothing
    from deepgrow3d_app.serving.dicomweb.orthanc import running_orthanc, store_files
    from deepgrow3d_app.serving.launch import serve
    from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
    from deepgrow3d_app.volume.files import read_volume

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through the block, which ends Orthanc
    with running_orthanc(folder / "orthanc") as address:
        console.print(f"Orthanc answers at {address.url}", highlight=False)
        trunk = Examination("ct-trunk", "Sample^Trunk", "DeepGrow 3D sample", "CT trunk 3 mm")
        with tempfile.TemporaryDirectory() as temporary:
            slices = write_dicom_series(read_volume(SAMPLES / "studies" / "ct-trunk.nii.gz"), Path(temporary), trunk)
            store_files(address, [*slices, *sorted((SAMPLES / "dicom-slab").glob("*.dcm"))])
        serve(address.url, host, port, checkpoint, data=folder / "server")
