"""The DICOMweb server: what there is on it (QIDO-RS), fetching (WADO-RS), storing (STOW-RS) and removing."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Retry

from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress
from deepgrow3d_app.serving.dicomweb.content_time import made_at
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries, ListedSegmentations, StoredSegmentation

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

PAGE = 1000
CONNECT_S = 3.0
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""What pydicom and the client raise on what is no DICOM."""
ANY_SYNTAX = (("application/dicom", "*"),)
"""As it is stored: a server that cannot decode JPEG 2000 refuses to send it as anything else."""


class Pacs:
    """One DICOMweb server; safe to share between threads.

    Every method raises ServerFault where the server is away, refuses, or answers what is no DICOMweb.
    """

    def __init__(self, address: DicomWebAddress) -> None:
        self.address = address
        session = requests.Session()
        session.trust_env = False  # a proxy for the internet must not get between this server and the hospital's
        session.mount("http://", _Patient(address.timeout_s))
        session.mount("https://", _Patient(address.timeout_s))
        if address.username:
            session.auth = (address.username, address.password)
        self._session = session
        self._client = DICOMwebClient(
            address.url,
            session=session,
            qido_url_prefix=address.qido_prefix or None,
            wado_url_prefix=address.wado_prefix or None,
            stow_url_prefix=address.stow_prefix or None,
            timeout=(CONNECT_S, address.timeout_s),  # else it waits for 20 s, whatever the session's adapter says
        )
        self._client.set_http_retry_params(retry=False)  # for minutes, while a person waits for an answer
        self._described: dict[str, StoredSegmentation | None] = {}  # by series; what is stored never changes

    def images(self) -> list[ImageSeries]:
        """All series that the address's filters find."""
        found: dict[str, ImageSeries] = {}
        for searched in self.address.filters:
            for series in self._search(searched):
                found[series.series_uid] = series
        return list(found.values())

    def segmentations(self, study_uids: set[str]) -> ListedSegmentations:
        """All segmentations in these studies."""
        listed = [series for series in self._search({"Modality": "SEG"}) if series.study_uid in study_uids]
        described = [found for series in listed if (found := self._description(series)) is not None]
        return ListedSegmentations(frozenset(series.series_uid for series in listed), tuple(described))

    def fetch(self, study_uid: str, series_uid: str, folder: Path) -> int:
        """Write the instances of a series to ``folder``, as ``UID.dcm``, and return how many they are."""
        count = 0
        for instance in self._instances(study_uid, series_uid):
            uid = str(instance.get("SOPInstanceUID", ""))
            if is_uid(uid):
                instance.save_as(folder / f"{uid}.dcm", enforce_file_format=True)
                count += 1
        return count

    def fetch_one(self, study_uid: str, series_uid: str) -> bytes:
        """The first instance of a series, as a DICOM file."""
        for instance in self._instances(study_uid, series_uid):
            file = BytesIO()
            instance.save_as(file, enforce_file_format=True)
            return file.getvalue()
        raise ServerFault(self.address.url, f"its series {series_uid} has no instance")

    def store(self, content: bytes) -> None:
        """Store the DICOM file ``content``."""
        with self._faults_named():
            answer = self._client.store_instances([dcmread(BytesIO(content))])
        failed = answer.get("FailedSOPSequence")
        if failed:
            reason = failed[0].get("FailureReason", "without a reason")
            raise ServerFault(self.address.url, f"it refused the segmentation ({reason})")

    def instances(self, study_uid: str, series_uid: str) -> set[str]:
        """The instances of a series, as the server lists them; none where it has no such series."""
        try:
            with self._faults_named():
                found = self._client.search_for_instances(study_uid, series_uid)
        except ServerFault as fault:
            refused = fault.__cause__.response if isinstance(fault.__cause__, requests.HTTPError) else None
            if refused is not None and refused.status_code == HTTPStatus.NOT_FOUND:
                return set()
            raise
        return {str(Dataset.from_json(one).get("SOPInstanceUID", "")) for one in found}

    def remove_segmentation(self, study_uid: str, series_uid: str, instance_uid: str) -> bool:
        """Remove a segmentation where the server lets us, and return whether it did.

        Series are what is removed: one that is no segmentation, or that has other instances too, stays.

        DICOMweb has no such request; many servers answer DELETE all the same, and Orthanc has a way of its own.
        """
        if not (is_uid(study_uid) and is_uid(series_uid)):
            return False
        with contextlib.suppress(requests.RequestException, ServerFault):
            listed = self._search({"Modality": "SEG", "SeriesInstanceUID": series_uid})
            if (study_uid, series_uid, "SEG") not in {(one.study_uid, one.series_uid, one.modality) for one in listed}:
                return False
            if self.instances(study_uid, series_uid) != {instance_uid}:
                return False
            root = "/".join(part for part in (self.address.url, self.address.wado_prefix) if part)
            answer = self._session.delete(f"{root}/studies/{study_uid}/series/{series_uid}")
            if answer.status_code in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT):
                return True
            return self._remove_from_orthanc(series_uid)
        return False

    def _remove_from_orthanc(self, series_uid: str) -> bool:
        if not urlsplit(self.address.url).path.strip("/"):
            return False  # without a path there is nothing beside DICOMweb on this server
        root = self.address.url.rpartition("/")[0]
        system = self._session.get(f"{root}/system")
        if not system.ok or "ApiVersion" not in system.text:
            return False
        found = self._session.post(f"{root}/tools/lookup", data=series_uid)
        paths = [entry["Path"] for entry in found.json() if entry.get("Type") == "Series"] if found.ok else []
        return bool(paths) and all(self._session.delete(root + path).ok for path in paths)

    def _search(self, filters: Mapping[str, str]) -> Iterator[ImageSeries]:
        """Page by page, until one brings nothing new: some servers send less than is asked for, some all each time."""
        seen: set[str] = set()
        while True:
            with self._faults_named():
                page = self._client.search_for_series(
                    search_filters=dict(filters),
                    fields=["SeriesDescription", "NumberOfSeriesRelatedInstances"],
                    limit=PAGE,
                    offset=len(seen),
                )
            new = [series for entry in page if (series := _listed(entry)) and series.series_uid not in seen]
            seen.update(series.series_uid for series in new)
            yield from new
            if not new:
                return

    def _description(self, series: ImageSeries) -> StoredSegmentation | None:
        """What a listed segmentation says of itself; one that does not must not hide the others."""
        if series.series_uid not in self._described:
            try:
                with self._faults_named():
                    metadata = self._client.retrieve_series_metadata(series.study_uid, series.series_uid)
            except ServerFault as fault:
                if not isinstance(fault.__cause__, requests.HTTPError):
                    raise
                logger.warning("The segmentation %s is left out of the list. %s", series.series_uid, fault)
                return None
            if not metadata:  # not there any more, or not quite yet
                return None
            self._described[series.series_uid] = self._read_description(series, metadata[0])
        return self._described[series.series_uid]

    @staticmethod
    def _read_description(series: ImageSeries, metadata: dict[str, Any]) -> StoredSegmentation | None:
        try:
            header = Dataset.from_json(metadata, bulk_data_uri_handler=lambda _: b"")
            return StoredSegmentation(
                series.series_uid,
                series.study_uid,
                str(header.get("SOPInstanceUID", "")),
                str(header.ReferencedSeriesSequence[0].SeriesInstanceUID),
                made_at(header),
                str(header.get("Manufacturer") or ""),
                int(header.get("SeriesNumber") or 0),
            )
        except MALFORMED as error:
            logger.warning("The segmentation %s does not say what it was drawn on: %s", series.series_uid, error)
            return None

    def _instances(self, study_uid: str, series_uid: str) -> Iterator[Dataset]:
        with self._faults_named():
            yield from self._client.iter_series(study_uid, series_uid, media_types=ANY_SYNTAX)

    @contextlib.contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            remedy = ", check user name and password" if status in (401, 403) else ""
            raise ServerFault(self.address.url, f"it answers with status {status}{remedy}") from error
        except requests.ConnectionError as error:
            raise ServerFault(self.address.url, "nothing answers there") from error
        except requests.RequestException as error:
            raise ServerFault(self.address.url, f"it does not answer ({type(error).__name__})") from error
        except MALFORMED as error:  # JSON or multipart that is none
            raise ServerFault(self.address.url, f"what it sends is no DICOMweb ({error})") from error


class _OnceMore(Retry):
    """Asks again where a connection was broken off: servers close idle ones while they are used again.

    Not where nothing came in time: that took long enough; nor what may have been stored.
    """

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Patient(HTTPAdapter):
    """Gives every request a time limit, which requests leaves out, and what can be repeated a second try."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        again = _OnceMore(total=None, connect=0, read=1, status=0, other=0, allowed_methods=("GET",))
        super().__init__(pool_maxsize=16, max_retries=again)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = (CONNECT_S, self._timeout_s)
        return super().send(request, *args, **kwargs)


def referenced_series(content: bytes) -> str | None:
    """The series that the DICOM SEG ``content`` was drawn on; None where it is something else."""
    try:
        header = dcmread(BytesIO(content), stop_before_pixels=True)
        if header.get("Modality") != "SEG":
            return None
        return str(header.ReferencedSeriesSequence[0].SeriesInstanceUID)
    except Exception:  # noqa: BLE001 - pydicom raises most of Python's exceptions on what is no DICOM
        return None


def is_uid(text: str) -> bool:
    """Whether ``text`` is a DICOM UID, and so fit to be a file name."""
    return len(text) <= 64 and bool(_UID.fullmatch(text))


def _listed(entry: dict[str, Any]) -> ImageSeries | None:
    """``entry`` of a search, None where it is malformed or its UIDs are none."""
    try:
        return _parsed(Dataset.from_json(entry))
    except MALFORMED as error:  # one bad series must not hide the others
        logger.warning("A series that the server lists is left out: %s", error)
        return None


def _parsed(header: Dataset) -> ImageSeries | None:
    series_uid, study_uid = str(header.get("SeriesInstanceUID", "")), str(header.get("StudyInstanceUID", ""))
    if not (is_uid(series_uid) and is_uid(study_uid)):
        logger.warning("A series without proper UIDs is left out: %r", series_uid[:80])
        return None
    return ImageSeries(
        series_uid,
        study_uid,
        modality=str(header.get("Modality") or ""),
        n_instances=int(header.get("NumberOfSeriesRelatedInstances") or 0),
        description=str(header.get("SeriesDescription") or ""),
        patient_id=str(header.get("PatientID") or ""),
        study_date=str(header.get("StudyDate") or ""),
    )
