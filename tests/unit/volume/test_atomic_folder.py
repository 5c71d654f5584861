import errno

import pytest

from deepgrow3d_app.volume.atomic_folder import replaced_folder


@pytest.mark.parametrize("inner", [None, "a.npy"])
def test_an_error_of_the_disk_names_the_folder_that_was_meant(tmp_path, inner):
    target = tmp_path / "case"
    target.mkdir()
    with pytest.raises(OSError, match="No space left on device") as caught, replaced_folder(target) as partial:
        raise OSError(errno.ENOSPC, "No space left on device", None if inner is None else str(partial / inner))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught, replaced_folder(tmp_path / "file" / "case"):
        pass
    assert caught.value.filename == str(tmp_path / "file" / "case")


def test_an_error_of_another_file_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replaced_folder(tmp_path / "case"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")
