"""Starting the server from Python: MONAI Label's ``start_server`` with fewer questions."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import uvicorn
from monailabel.config import settings

import deepgrow3d_app
from deepgrow3d_app.errors import Busy, DeepGrow3DError, InvalidRequest, NotFound
from deepgrow3d_app.serving.app import MODEL_NAME, DeepGrow3DApp
from deepgrow3d_app.serving.dicomweb.address import is_address
from deepgrow3d_app.serving.server import build, served_app

APP_FOLDER = Path(deepgrow3d_app.__file__).parents[1] / "apps" / "deepgrow3d"
SMALL_FILE_BYTES = 64 << 20


def serve(
    studies: str, host: str = "127.0.0.1", port: int = 8000, checkpoint: Path | None = None, data: Path | None = None
) -> None:
    """Serve ``studies`` until the process is told to stop.

    Args:
        studies: a folder of images, in which labels and sessions are kept; or the address of a DICOMweb server.
        host, port: the address to listen on.
        checkpoint: weights to serve; ``None`` for the app's own.
        data: where is kept what the server keeps; ``None`` for the settings' folder.

    Raises:
        NotFound: there is no such folder, or the app folder is not beside the package.
        Busy: something else listens at the address.
        DeepGrow3DError: the server cannot start; the message says why.
    """
    if not is_address(studies) and not Path(studies).is_dir():
        raise NotFound(f"There is no folder '{studies}'. Make it, and put images (.nii.gz, .nii, .nrrd) into it.")
    if not (APP_FOLDER / "main.py").is_file():
        raise NotFound(
            f"The app folder '{APP_FOLDER}' is missing: it is part of the checkout, beside the package. Install with "
            "`pip install --editable .`, or run `monailabel start_server --app FOLDER` with the folder's place."
        )
    _check_address(host, port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for talkative in ("monailabel", "highdicom", "dicomweb_client", "httpx"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    _configure(
        studies if is_address(studies) else str(Path(studies).resolve()),
        port,
        {"checkpoint": checkpoint, "cache_folder": data},
    )
    served = served_app()
    server = _AnnouncingServer(
        uvicorn.Config(build(served), host=host, port=port, log_level="warning"), _welcome(served, host, port)
    )
    server.run()


def _check_address(host: str, port: int) -> None:
    """Find out before the model is loaded whether the server will be able to listen."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Busy(
                f"Port {port} of {host} is in use. Stop what listens there, or choose another --port."
            ) from error
        raise InvalidRequest(
            f"The server cannot listen at {host}, port {port}: {error.strerror}. "
            "Name an address of this machine with --host, and a port above 1023 with --port."
        ) from error


def _configure(studies: str, port: int, paths: Mapping[str, Path | None]) -> None:
    """Tell MONAI Label what ``start_server`` would, also in the environment, for the processes it starts."""
    settings.MONAI_LABEL_SERVER_PORT = port
    settings.MONAI_LABEL_APP_DIR = str(APP_FOLDER)
    settings.MONAI_LABEL_STUDIES = studies
    settings.MONAI_LABEL_APP_CONF = {name: str(path.resolve()) for name, path in paths.items() if path is not None}
    for name, value in settings.model_dump(mode="json").items():
        if value is not None:
            os.environ[name] = json.dumps(value) if isinstance(value, dict | list) else str(value)


class _AnnouncingServer(uvicorn.Server):
    """A server that says what to do next once it answers."""

    def __init__(self, config: uvicorn.Config, welcome: str) -> None:
        super().__init__(config)
        self._welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(self._welcome)
            sys.stdout.flush()


def _welcome(served: DeepGrow3DApp, host: str, port: int) -> str:
    address = _address(host, port) + settings.MONAI_LABEL_API_STR
    image, voxel = _example_click(served)
    ohif = "" if served.dicomweb is None else f"\n  OHIF             {_address(host, port)}/ohif/"
    return f"""
DeepGrow 3D answers at {address}   (Ctrl+C stops it; not for diagnostic use)

  to try it        {address}/{ohif}
  API              {address}/docs
  3D Slicer        module "MONAI Label", server address {address}
  a click          curl -X POST '{address}/infer/{MODEL_NAME}?image={image}&output=image' -o mask.nii.gz \\
                     -F 'params={{"foreground": [{voxel}], "background": [], "result_extension": ".nii.gz"}}'

Studies: {served.studies} ({len(served.images().list_images())} image(s))
"""


def _address(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens at ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what it listens on, for people
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _example_click(served: DeepGrow3DApp) -> tuple[str, list[int]]:
    """An image, and the voxel in its middle; only small files are decoded for it, and nothing is fetched."""
    if served.dicomweb is not None:
        return "SERIES-UID", [0, 0, 0]
    for image in sorted(served.images().list_images()):
        try:
            path = served.images().image_file(image)
            if path.stat().st_size <= SMALL_FILE_BYTES:
                return quote(image), [n // 2 for n in served.volumes.get(path).shape]
        except (DeepGrow3DError, OSError):  # noqa: PERF203 - the next image may do
            continue
    return "ID", [0, 0, 0]
