import pytest

from deepgrow3d_app.errors import Busy
from deepgrow3d_app.serving import attendance
from deepgrow3d_app.serving.attendance import Attendance


def test_others_see_that_somebody_is_at_work_until_it_has_ended(tmp_path):
    mine, other = Attendance(tmp_path), Attendance(tmp_path)
    assert not other.is_held()
    mine.begin()
    assert mine.is_held()
    assert other.is_held()
    mine.end()
    assert not mine.is_held()
    assert not other.is_held()


def test_nobody_else_begins_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(attendance, "LOOKED_AT_S", 0.1)
    Attendance(tmp_path).is_held()  # looking leaves nothing behind
    mine, other = Attendance(tmp_path), Attendance(tmp_path)
    mine.begin()
    with pytest.raises(Busy, match="Another server is at work"):
        other.begin()
    mine.end()
    other.begin()
    other.end()
