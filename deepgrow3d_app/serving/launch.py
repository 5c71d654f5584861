"""Starting the server from Python: MONAI Label's ``start_server`` with fewer questions."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import uvicorn
from monailabel.config import settings

from deepgrow3d_app.errors import DeepGrow3DError
from deepgrow3d_app.model.allocator import share_heaps
from deepgrow3d_app.serving.app import MODEL_NAME, DeepGrow3DApp
from deepgrow3d_app.serving.dicomweb.address import is_address
from deepgrow3d_app.serving.logs import set_up_logs
from deepgrow3d_app.serving.preflight import APP_FOLDER, Access, check_start
from deepgrow3d_app.serving.security.door import door_of
from deepgrow3d_app.serving.server import build, served_app
from deepgrow3d_app.serving.settings import ServingSettings

SMALL_FILE_BYTES = 64 << 20
DRAIN_S = 30
"""What clicks and saves that have begun may take to end, once the server is told to stop."""


def serve(
    studies: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    checkpoint: Path | None = None,
    data: Path | None = None,
    access: Access | None = None,
) -> None:
    """Serve ``studies`` until the process is told to stop.

    Args:
        studies: a folder of images, in which labels and sessions are kept; or the address of a DICOMweb server.
        host, port: the address to listen on.
        checkpoint: weights to serve; ``None`` for the app's own.
        data: where is kept what the server keeps; ``None`` for the settings' folder.
        access: who may call; ``None`` for what the settings say.

    Raises:
        InvalidRequest: other machines could call, and nothing says who they are.
        NotFound: there is no such folder, or the app folder is not beside the package.
        Busy: something else listens at the address.
        DeepGrow3DError: the server cannot start; the message says why.
    """
    access = access or Access()
    check_start(studies, host, port, access)
    share_heaps()
    paths = {"checkpoint": checkpoint, "cache_folder": data, "tokens_file": access.tokens}
    _configure(studies if is_address(studies) else str(Path(studies).resolve()), port, paths, access.lets_others_in)
    serving = ServingSettings.load(settings.MONAI_LABEL_APP_CONF)
    access.check_host(host, is_open=door_of(serving).is_open and not serving.insecure)
    set_up_logs(serving.log_format)
    served = served_app()
    config = uvicorn.Config(
        build(served),
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        ssl_certfile=access.certificate,
        ssl_keyfile=access.key,
    )
    server = _AnnouncingServer(config, _welcome(served, host, port, access))
    server.run()


def _configure(studies: str, port: int, paths: Mapping[str, Path | None], is_insecure: bool) -> None:
    """Tell MONAI Label what ``start_server`` would, also in the environment, for the processes it starts."""
    settings.MONAI_LABEL_SERVER_PORT = port
    settings.MONAI_LABEL_APP_DIR = str(APP_FOLDER)
    settings.MONAI_LABEL_STUDIES = studies
    conf = {name: str(path.resolve()) for name, path in paths.items() if path is not None}
    settings.MONAI_LABEL_APP_CONF = conf | ({"insecure": "true"} if is_insecure else {})
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


def _welcome(served: DeepGrow3DApp, host: str, port: int, access: Access) -> str:
    root = _address(host, port, access.has_tls)
    address = root + settings.MONAI_LABEL_API_STR
    image, voxel = _example_click(served)
    token = "" if door_of(served.serving).is_open else " -H 'Authorization: Bearer TOKEN'"
    ohif = "" if served.dicomweb is None else f"\n  OHIF             {root}/ohif/"
    return f"""
DeepGrow 3D answers at {address}   (Ctrl+C stops it; not for diagnostic use)

  to try it        {address}/{ohif}
  API              {address}/docs
  3D Slicer        module "MONAI Label", server address {address}
  a click          curl -X POST '{address}/infer/{MODEL_NAME}?image={image}&output=image' -o mask.nii.gz{token} \\
                     -F 'params={{"foreground": [{voxel}], "background": [], "result_extension": ".nii.gz"}}'

Studies: {served.studies} ({len(served.images().list_images())} image(s))
"""


def _address(host: str, port: int, has_tls: bool = False) -> str:
    """Where a browser on this machine finds a server that listens at ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what it listens on, for people
    scheme = "https" if has_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


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
