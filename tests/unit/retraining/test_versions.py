import itertools
import json
import logging

import pytest

from deepgrow3d_app.errors import CheckpointError, NotFound
from deepgrow3d_app.retraining import versions as versions_module
from deepgrow3d_app.retraining.versions import KEPT_VERSIONS, VersionRecord, Versions, sha256_of
from deepgrow3d_app.volume import atomic_file


@pytest.fixture
def served(tmp_path):
    file = tmp_path / "model" / "net.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"shipped")
    return file


@pytest.fixture
def versions(served):
    return Versions(served)


@pytest.fixture
def publish(versions, tmp_path):
    def publish(content, **record):
        weights = tmp_path / "candidate"
        weights.write_bytes(content)
        return versions.publish(weights, VersionRecord(made_by="training", **record))

    return publish


def test_what_was_served_first_becomes_a_version_too(versions, served, publish):
    assert versions.current() is None
    version = publish(b"better", job="0007")
    assert served.read_bytes() == b"better"
    assert [(v.number, v.made_by) for v in versions.all()] == [(1, "found"), (2, "training")]
    assert version == versions.current() == versions.all()[-1]
    assert version.parent == versions.all()[0].sha256
    assert version.job == "0007"
    assert versions.file(1).read_bytes() == b"shipped"


def test_the_same_weights_again_are_the_same_version(versions, publish):
    assert publish(b"better").number == publish(b"better").number == 2
    assert publish(b"shipped").number == 1
    assert len(versions.all()) == 2


def test_roll_back_to_the_parent_or_to_any_version(versions, served, publish):
    publish(b"better")
    publish(b"best")
    assert versions.roll_back().number == 2
    assert served.read_bytes() == b"better"
    assert versions.roll_back().number == 1
    assert served.read_bytes() == b"shipped"
    with pytest.raises(NotFound, match="before the one that is served"):
        versions.roll_back()
    assert versions.roll_back(3).number == 3
    assert served.read_bytes() == b"best"
    with pytest.raises(NotFound, match=r"no version 9 of 'net'\. There are 1, 2, 3"):
        versions.roll_back(9)


def test_where_the_served_file_is_gone_the_latest_good_version_is_served(versions, served, publish):
    publish(b"better")
    publish(b"best")
    versions.roll_back(2)
    served.unlink()
    assert versions.roll_back().number == 2
    assert served.read_bytes() == b"better"


def test_a_checkpoint_that_never_was_is_not_found_and_nothing_is_made(tmp_path):
    with pytest.raises(NotFound, match="There is no checkpoint"):
        Versions(tmp_path / "typo" / "net.safetensors").roll_back()
    assert not (tmp_path / "typo").exists()


def test_a_damaged_version_is_not_served(versions, served, publish):
    publish(b"better")
    versions.file(1).write_bytes(b"rotten")
    with pytest.raises(CheckpointError, match="Version 1 of 'net' is damaged"):
        versions.roll_back(1)
    assert served.read_bytes() == b"better"


def damaged(file, kind):
    """What is left of ``file`` after a crash of the disk, or after somebody's copy of another version's."""
    content = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "gone":
        file.unlink()
        file.mkdir()
    else:
        file.write_text(json.dumps({**json.loads(content), "number": 7}))
    return file


@pytest.mark.parametrize("kind", ["truncated", "gone", "of another version"])
def test_a_damaged_record_takes_nothing_from_the_other_versions(versions, served, publish, caplog, kind):
    publish(b"better")
    publish(b"best")
    record = damaged(versions.folder / "net-0001.json", kind)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [v.number for v in versions.all()] == [2, 3]
    assert len(caplog.messages) == 1, "once, and not at every look"
    assert str(record) in caplog.text
    assert versions.roll_back().number == 2
    with pytest.raises(CheckpointError, match=r"record of version 1 of 'net' is damaged\. Choose another version"):
        versions.roll_back(1)
    assert served.read_bytes() == b"better"
    assert (versions.folder / "net-0001.safetensors").read_bytes() == b"shipped"


def test_the_number_of_a_damaged_version_is_not_given_again(versions, served, publish):
    publish(b"better")
    record = damaged(versions.folder / "net-0002.json", "truncated")
    left = record.read_bytes()
    assert publish(b"best").number == 4, "what was served is kept as a version that has a record, the third"
    assert [(v.number, v.made_by) for v in versions.all()] == [(1, "found"), (3, "found"), (4, "training")]
    assert record.read_bytes() == left
    assert record.with_suffix(".safetensors").read_bytes() == versions.file(3).read_bytes() == b"better"
    assert served.read_bytes() == b"best"


def test_what_somebody_put_beside_the_versions_stays(versions, publish):
    publish(b"better")
    others = [versions.folder / name for name in ("net-backup.safetensors", "net-12.safetensors", "net-0007.bak")]
    for file in others:
        file.write_bytes(b"mine")
    unrecorded = versions.folder / "net-0009.safetensors"
    unrecorded.write_bytes(b"of a publication that was killed")
    versions.roll_back()
    for number in range(KEPT_VERSIONS + 1):
        publish(b"weights %d" % number)
    assert [file.read_bytes() for file in others] == [b"mine"] * 3
    assert not unrecorded.exists()


def test_the_newest_are_kept_and_the_one_that_is_served(versions, served, publish):
    for number in range(8):
        publish(b"weights %d" % number)
    assert [v.number for v in versions.all()] == [5, 6, 7, 8, 9]
    versions.roll_back(5)
    for number in range(8, 10):
        publish(b"weights %d" % number)
    assert len(versions.all()) == KEPT_VERSIONS
    assert len(list(versions.folder.glob("*.safetensors"))) == KEPT_VERSIONS


def test_what_was_served_before_is_kept_however_many_networks_were_rolled_back_to_it(versions, served, publish):
    for number in range(KEPT_VERSIONS + 2):
        publish(b"worse %d" % number, job=str(number))
        assert versions.roll_back().number == 1
        assert served.read_bytes() == b"shipped"
    assert len(versions.all()) <= KEPT_VERSIONS + 1


def test_roll_back_does_not_choose_what_was_rolled_back_itself(versions, served, publish):
    publish(b"better")
    publish(b"worse")
    versions.roll_back()
    publish(b"best")  # the fourth, and its parent is the second
    versions.roll_back(2)
    versions.roll_back(1)
    versions.roll_back(4)  # whose parent is rolled back, and so is the third
    assert versions.roll_back().number == 1
    served.write_bytes(b"best")
    (versions.folder / "net-0001.json").unlink()
    with pytest.raises(NotFound, match=r"but for those that were rolled back\. Choose one of them by its number"):
        versions.roll_back()
    assert versions.roll_back(3).number == 3


def test_a_version_that_is_published_again_is_whole_and_no_longer_rolled_back(versions, served, publish):
    publish(b"better")
    versions.roll_back()
    versions.file(2).write_bytes(b"rotten")
    version = publish(b"better")
    assert (version.number, version.is_rolled_back) == (2, False)
    assert version == versions.current()
    assert served.read_bytes() == versions.file(2).read_bytes() == b"better"


def test_two_checkpoints_in_one_folder_have_versions_of_their_own(versions, served, publish):
    publish(b"better")
    other = Versions(served.with_name("net-2.safetensors"))
    other.served.write_bytes(b"other")
    assert other.all() == []
    assert other.publish(served, VersionRecord(made_by="upload")).number == 2
    assert [v.number for v in versions.all()] == [1, 2]


class Killed(BaseException):
    """Nothing in the program sees it coming."""


@pytest.mark.parametrize("survives", range(4))
def test_killed_at_any_write_the_old_or_the_new_is_served_and_the_next_publication_works(
    versions, served, publish, monkeypatch, survives
):
    """Publishing writes four files: the found version's weights and record, the new one's, and then the served one."""
    writes = itertools.count()

    def replace_file(path, content):
        if next(writes) == survives:
            path.with_name(".half.part").write_bytes(b"ha")
            raise Killed
        atomic_file.replace_file(path, content)

    monkeypatch.setattr(versions_module, "replace_file", replace_file)
    with pytest.raises(Killed):
        publish(b"better")
    monkeypatch.setattr(versions_module, "replace_file", atomic_file.replace_file)
    assert served.read_bytes() == b"shipped"
    assert all(sha256_of(versions.file(v.number)) == v.sha256 for v in versions.all())
    publish(b"better")
    assert served.read_bytes() == b"better"
    assert [v.sha256 for v in versions.all()][-1] == sha256_of(served)
    assert len(list(versions.folder.glob("*.safetensors"))) == len(versions.all()) == 2
    assert not list(versions.folder.glob(".*.part"))
