"""What can be refused at once, before MONAI Label and PyTorch are loaded: that takes seconds."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import deepgrow3d_app
from deepgrow3d_app.errors import Busy, InvalidRequest, NotFound
from deepgrow3d_app.serving.dicomweb.address import is_address

APP_FOLDER = Path(deepgrow3d_app.__file__).parents[1] / "apps" / "deepgrow3d"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call, as the command line says it.

    Attributes:
        tokens: the file of tokens; ``None`` where the settings name one, or nobody signs in.
        certificate, key: files for TLS, in PEM.
        is_insecure: whether other machines may call although nobody signs in.
    """

    tokens: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    is_insecure: bool = False

    @property
    def has_tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.certificate is not None

    @property
    def lets_others_in(self) -> bool:
        """Whether other machines may call although nobody signs in."""
        return self.is_insecure or self.has_tls

    def check(self) -> None:
        """Raise ``InvalidRequest`` where files are missing, or hold no certificate and its key."""
        if self.key is not None and self.certificate is None:
            raise InvalidRequest("There is a key for TLS and no certificate. Give --tls-certificate FILE too.")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise InvalidRequest(f"There is no file '{file}'. TLS takes a certificate and its key, in PEM.")
        if self.certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
            except ssl.SSLError as error:
                files = " and ".join(f"'{file}'" for file in (self.certificate, self.key) if file is not None)
                raise InvalidRequest(
                    f"{files} cannot be used for TLS ({error.reason or error}). Give a certificate and its key, in PEM."
                ) from error

    def check_host(self, host: str, *, is_open: bool) -> None:
        """Raise ``InvalidRequest`` where anybody could call from elsewhere.

        Args:
            host: what the server listens on.
            is_open: whether nobody signs in, and that was not asked for.
        """
        if is_open and not self.has_tls and not _is_of_this_machine(host):
            raise InvalidRequest(
                f"At '{host}', other machines could read and change these studies: nobody signs in. Give --tokens FILE "
                "(make one with `deepgrow3d token add NAME --file FILE`), or --tls-certificate and --tls-key, or "
                "say --insecure. Or listen on 127.0.0.1."
            )


def _is_of_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_start(studies: str, host: str, port: int, access: Access) -> None:
    """Refuse a server that could not start.

    Args:
        studies: a folder of images, or the address of a DICOMweb server.
        host, port: the address to listen on.
        access: who may call.

    Raises:
        NotFound: there is no such folder, or the app folder is not beside the package.
        Busy: something else listens at the address.
        InvalidRequest: nothing can listen there, or TLS has not what it takes.
    """
    if not is_address(studies) and not Path(studies).is_dir():
        raise NotFound(f"There is no folder '{studies}'. Make it, and put images (.nii.gz, .nii, .nrrd) into it.")
    if not (APP_FOLDER / "main.py").is_file():
        raise NotFound(
            f"The app folder '{APP_FOLDER}' is missing: it is part of the checkout, beside the package. Install with "
            "`pip install --editable .`, or run `monailabel start_server --app FOLDER` with the folder's place."
        )
    access.check()
    check_address(host, port)


def check_address(host: str, port: int) -> None:
    """Find out whether the server will be able to listen.

    Raises:
        Busy: something else listens at the address.
        InvalidRequest: nothing can listen there.
    """
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
