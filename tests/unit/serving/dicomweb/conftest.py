"""An archive of one series, and servers before it."""

from __future__ import annotations

import shutil
import threading
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread

from deepgrow3d_app.errors import ServerFault
from deepgrow3d_app.serving.click_log import ClickLog
from deepgrow3d_app.serving.dicomweb.content_time import made_at
from deepgrow3d_app.serving.dicomweb.listed import ImageSeries, ListedSegmentations, StoredSegmentation
from deepgrow3d_app.serving.dicomweb.studies import DicomWebStudies
from deepgrow3d_app.volume.cache import VolumeCache
from deepgrow3d_app.volume.dicom_series import Examination, write_dicom_series
from deepgrow3d_app.volume.files import read_mask, read_volume, write_mask
from deepgrow3d_app.volume.volume import Volume

NAMES = {"label_info": [{"name": "liver", "idx": 1}]}


class Archive:
    """What the servers know as a :class:`Pacs`: one series, and the segmentations that they store."""

    def __init__(self, files):
        self.address = SimpleNamespace(url="http://archive/dicom-web")
        self.files = files
        header = dcmread(files[0])
        self.uid = str(header.SeriesInstanceUID)
        self.study_uid = str(header.StudyInstanceUID)
        self.stored = {}
        self.is_readable = True
        self.is_away = False
        self.asked = 0
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def images(self):
        self.asked += 1
        self.is_asked.set()
        assert self.may_answer.wait(30)
        if self.is_away:
            raise ServerFault(self.address.url, "it does not answer")
        return [ImageSeries(self.uid, self.study_uid, "CT", len(self.files), "", "", "")]

    def segmentations(self, study_uids):
        return ListedSegmentations(frozenset(self.stored), tuple(self._listed(one) for one in self.stored.values()))

    def fetch(self, study_uid, series_uid, folder):
        for file in self.files:
            shutil.copy(file, folder)
        return len(self.files)

    def fetch_one(self, study_uid, series_uid):
        if not self.is_readable:
            raise ServerFault(self.address.url, "its disk is broken")
        return self.stored[series_uid]

    def store(self, content):
        self.stored[str(dcmread(BytesIO(content)).SeriesInstanceUID)] = content

    def instances(self, study_uid, series_uid):
        return {str(dcmread(BytesIO(self.stored[series_uid])).SOPInstanceUID)} if series_uid in self.stored else set()

    def remove_segmentation(self, study_uid, series_uid, instance_uid):
        return self.instances(study_uid, series_uid) == {instance_uid} and self.stored.pop(series_uid) is not None

    def change(self, series_uid, **values):
        """Make the header of what is stored another one."""
        header = dcmread(BytesIO(self.stored[series_uid]))
        for name, value in values.items():
            setattr(header, name, value)
        content = BytesIO()
        header.save_as(content)
        self.stored[series_uid] = content.getvalue()

    def _listed(self, content):
        header = dcmread(BytesIO(content))
        return StoredSegmentation(
            str(header.SeriesInstanceUID),
            self.study_uid,
            str(header.SOPInstanceUID),
            self.uid,
            made_at(header),
            str(header.Manufacturer),
            int(header.SeriesNumber),
        )


@pytest.fixture
def archive(tmp_path):
    voxels = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    volume = Volume(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]))
    return Archive(write_dicom_series(volume, tmp_path / "series", Examination("ann", "Ann^A", "study", "series")))


@pytest.fixture
def server(tmp_path, archive):
    """Makes a server with an empty folder of its own."""

    def make(name, refresh_s=0.0):
        (tmp_path / name).mkdir()
        cache = VolumeCache(1 << 20)
        return DicomWebStudies(
            tmp_path / name,
            archive,
            cache,
            ClickLog(None),
            max_bytes=1 << 20,
            refresh_s=refresh_s,
            removes_superseded=True,
        )

    return make


@pytest.fixture
def save(tmp_path, archive):
    """Saves a label of so many voxels."""

    def write(studies, n_voxels, tag="final", **info):
        volume = read_volume(archive.files[0].parent)
        mask = (np.arange(volume.array.size) < n_voxels).astype(np.uint8).reshape(volume.shape)
        write_mask(mask, volume.affine, tmp_path / "label.nii.gz")
        return studies.save_version(archive.uid, str(tmp_path / "label.nii.gz"), tag, {**NAMES, **info})

    return write


def wait_for_lists():
    """Until no server looks at the archive by the way: what it finds there could be older than the next save."""
    for thread in threading.enumerate():
        if thread.name == "dicomweb-list":
            thread.join(30)


def voxels_in(file):
    return np.count_nonzero(read_mask(file)[0])


def voxels_in_history(studies, uid):
    history = studies.history
    return [voxels_in(history.file(uid, "final", version.number)) for version in history.versions(uid, "final")]
