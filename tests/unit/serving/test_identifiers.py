import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.errors import InvalidRequest, NotFound
from deepgrow3d_app.serving.identifiers import MAX_BYTES, checked_name, checked_session_id, shown


@pytest.mark.parametrize(
    "name", ["ct-trunk", "4: CT Abdomen (1)", "1.2.840.113619.2.55", "Müller_07", "a", "x" * MAX_BYTES]
)
def test_names_that_viewers_give_are_taken_as_they_are(name):
    assert checked_name(name, "an image id") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "../x",
        "a..b",
        ".hidden",
        " a",
        "a ",
        "a.",
        "a\0b",
        "a\nb",
        "~",
        "$HOME",
        "x" * (MAX_BYTES + 1),
        "ü" * MAX_BYTES,
    ],
)
def test_other_names_are_refused_with_the_rule(name):
    with pytest.raises(InvalidRequest, match=r"cannot be an image id\. Use letters"):
        checked_name(name, "an image id")


@given(st.text(max_size=40))
def test_a_name_that_is_taken_stays_in_its_folder(name):
    folder = Path("/studies")
    try:
        checked_name(name, "an image id")
    except InvalidRequest:
        return
    path = folder / f"{name}.nii.gz"
    assert path.resolve().parent == folder
    assert not path.name.startswith(".")
    assert len(path.name.encode()) <= 255


def test_a_session_id_is_a_uuid():
    session_id = str(uuid.UUID(int=7))
    assert checked_session_id(session_id) == session_id
    assert checked_session_id(session_id.upper()) == session_id


@pytest.mark.parametrize(
    "session_id", ["", "abc", "../" + str(uuid.UUID(int=7)), "{" + str(uuid.UUID(int=7)) + "}", "0" * 32]
)
def test_anything_else_is_no_session(session_id):
    with pytest.raises(NotFound, match="PUT /session/"):
        checked_session_id(session_id)


def test_what_is_shown_is_short_and_on_one_line():
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 10_000)) < 100
