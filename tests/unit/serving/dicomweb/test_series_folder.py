"""Fetched series where two servers share a folder, and where one of them was killed."""

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from deepgrow3d_app.serving.dicomweb.listed import ImageSeries
from deepgrow3d_app.serving.dicomweb.series_folder import SeriesFolder
from deepgrow3d_app.serving.incoming import ABANDONED_S

SERIES = ImageSeries("1.2.3", "1.2", "CT", 3, "", "", "")


class Archive:
    """Sends three slices; ``meanwhile`` is called before the last."""

    def __init__(self, meanwhile):
        self.address = SimpleNamespace(url="http://archive/dicom-web")
        self.meanwhile = meanwhile

    def fetch(self, study_uid, series_uid, folder):
        for number in range(3):
            if number == 2:
                self.meanwhile()
            (folder / f"{number}.dcm").write_bytes(b"slice")
        return 3


@pytest.fixture
def server(tmp_path):
    def make(meanwhile=lambda: None):
        archive: Any = Archive(meanwhile)
        return SeriesFolder(tmp_path, archive, max_bytes=1 << 20)

    return make


def test_a_server_that_starts_leaves_what_another_one_is_fetching(server, tmp_path):
    path = server(meanwhile=server).fetched(SERIES)
    assert sorted(file.name for file in path.iterdir()) == ["0.dcm", "1.dcm", "2.dcm"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_server_that_starts_removes_what_was_left_long_ago(server, tmp_path):
    class Killed(BaseException):
        pass

    left = []

    def killed():
        (partial,) = tmp_path.glob(".*.part")
        os.rename(partial, tmp_path / "aside")  # where the clean-up of a process that lives does not find it
        left.append(partial)
        raise Killed

    with pytest.raises(Killed):
        server(meanwhile=killed).fetched(SERIES)
    (partial,) = left
    os.rename(tmp_path / "aside", partial)
    server()
    assert partial.is_dir()
    an_hour_ago = time.time() - ABANDONED_S - 1
    for path in (*partial.iterdir(), partial):
        os.utime(path, (an_hour_ago, an_hour_ago))
    server()
    assert list(tmp_path.iterdir()) == []
