import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from deepgrow3d_app.errors import InvalidRequest, NotFound, NotSignedIn
from deepgrow3d_app.serving.security.identity import EVERYBODY, Identity, OpenDoor, Role
from deepgrow3d_app.serving.security.tokens import TokenDoor, TokenFile, hashed, parse_tokens

HASH = "ab" * 32


def test_a_role_may_do_what_those_below_it_may():
    assert Role.USER < Role.ANNOTATOR < Role.REVIEWER < Role.ADMIN
    assert [role.title for role in Role] == ["user", "annotator", "reviewer", "admin"]


def test_without_sign_in_everybody_may_do_everything():
    assert OpenDoor().identify(None) == OpenDoor().identify("anything") == EVERYBODY
    assert EVERYBODY.role is Role.ADMIN


def test_a_token_is_known_by_its_hash_alone(tmp_path):
    file = tmp_path / "tokens.txt"
    token = TokenFile(file).add("anna", Role.ANNOTATOR)
    assert token.startswith("dg3d_")
    assert len(token) >= 48
    content = file.read_text()
    assert token not in content
    assert hashed(token) in content
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert TokenDoor(file).identify(token) == Identity("anna", Role.ANNOTATOR)


@pytest.mark.parametrize("token", [None, "", "dg3d_wrong", HASH, "é", "\udc80"])
def test_other_tokens_are_not(tmp_path, token):
    file = tmp_path / "tokens.txt"
    TokenFile(file).add("anna", Role.ANNOTATOR)
    with pytest.raises(NotSignedIn):
        TokenDoor(file).identify(token)


def test_a_running_server_takes_new_tokens_and_revoked_ones_at_once(tmp_path):
    file = TokenFile(tmp_path / "tokens.txt")
    anna = file.add("anna", Role.ADMIN)
    door = TokenDoor(file.path)
    ben = file.add("ben", Role.USER)
    assert door.identify(ben) == Identity("ben", Role.USER)
    file.remove("anna")
    with pytest.raises(NotSignedIn, match="revoked"):
        door.identify(anna)
    file.path.unlink()
    with pytest.raises(NotSignedIn):
        door.identify(ben)


def test_tokens_of_the_environment_stand_beside_those_of_a_file(tmp_path):
    file = TokenFile(tmp_path / "tokens.txt")
    anna = file.add("anna", Role.USER)
    door = TokenDoor(file.path, parse_tokens(f"robot admin {hashed('secret')}", "DEEPGROW3D_TOKENS"))
    assert door.identify(anna).name == "anna"
    assert door.identify("secret") == Identity("robot", Role.ADMIN)


def test_lines_and_comments():
    entries = parse_tokens(f"# ours\n\nanna annotator {HASH}  # until May\nben@ward.example user {HASH}", "it")
    assert [entry.identity for entry in entries] == [
        Identity("anna", Role.ANNOTATOR),
        Identity("ben@ward.example", Role.USER),
    ]
    assert parse_tokens("\n".join(entry.line() for entry in entries), "it") == entries


@pytest.mark.parametrize(
    "line",
    [
        "anna",
        "anna annotator",
        f"anna king {HASH}",
        f"anna ADMIN {HASH}",
        "anna admin s3cret",
        f"anna admin {HASH[:-1]}",
        f"anna admin {HASH} more",
        f"../anna admin {HASH}",
        f"{'a' * 65} admin {HASH}",
    ],
)
def test_a_line_that_is_none_is_named_and_not_repeated(line):
    with pytest.raises(InvalidRequest, match="Line 2 of it is no token") as refused:
        parse_tokens(f"ben user {HASH}\n{line}", "it")
    assert "s3cret" not in str(refused.value)


def test_a_name_has_one_token(tmp_path):
    file = TokenFile(tmp_path / "tokens.txt")
    file.add("anna", Role.USER)
    before = file.path.read_bytes()
    with pytest.raises(InvalidRequest, match=r"'anna' has a token in 'tokens\.txt'"):
        file.add("anna", Role.ADMIN)
    with pytest.raises(InvalidRequest, match="'anna lena' is no name"):
        file.add("anna lena", Role.ADMIN)
    with pytest.raises(NotFound, match="no token of 'ben'"):
        file.remove("ben")
    assert file.path.read_bytes() == before


def test_comments_stay_where_they_are(tmp_path):
    file = TokenFile(tmp_path / "tokens.txt")
    file.path.write_text(f"# of the trial\nanna user {HASH}  # until May\n\n")
    file.add("ben", Role.USER)
    file.remove("ben")
    assert file.path.read_text() == f"# of the trial\nanna user {HASH}  # until May\n\n"
    file.remove("anna")
    assert file.path.read_text() == "# of the trial\n\n"


def test_tokens_that_are_made_at_once_are_all_good(tmp_path):
    file = tmp_path / "tokens.txt"
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda n: TokenFile(file).add(f"user{n}", Role.USER), range(24)))
    door = TokenDoor(file)
    assert [door.identify(token).name for token in tokens] == [f"user{n}" for n in range(24)]


def test_a_file_that_becomes_unreadable_lets_nobody_in(tmp_path, caplog):
    file = TokenFile(tmp_path / "tokens.txt")
    token = file.add("anna", Role.USER)
    door = TokenDoor(file.path)
    file.path.write_bytes(b"\xff\xfe")
    with pytest.raises(NotSignedIn):
        door.identify(token)
    assert "until it is mended" in caplog.text
    with pytest.raises(InvalidRequest, match="cannot be read"):
        TokenDoor(file.path)


def test_a_file_that_is_mended_by_its_rights_alone_is_read_again(tmp_path, monkeypatch):
    """As by chown in a container: neither its content nor the time of that changes."""
    file = TokenFile(tmp_path / "tokens.txt")
    anna = file.add("anna", Role.USER)
    door = TokenDoor(file.path)
    ben = file.add("ben", Role.USER)

    def refused(file):
        raise PermissionError(13, "Permission denied", str(file.path))

    with monkeypatch.context() as patched:
        patched.setattr(TokenFile, "entries", refused)
        for token in (anna, ben):
            with pytest.raises(NotSignedIn):
                door.identify(token)
    with pytest.raises(NotSignedIn):  # it is not tried again for nothing
        door.identify(ben)
    file.path.chmod(0o640)
    assert door.identify(ben) == Identity("ben", Role.USER)


def test_a_change_keeps_the_file_s_mode(tmp_path):
    file = TokenFile(tmp_path / "tokens.txt")
    file.add("anna", Role.USER)
    file.path.chmod(0o640)
    file.add("ben", Role.USER)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


def test_a_door_that_nobody_could_pass_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no file of tokens"):
        TokenDoor(tmp_path / "tokens.txt")
    (tmp_path / "tokens.txt").write_text("# nobody yet\n")
    with pytest.raises(InvalidRequest, match="nobody could sign in"):
        TokenDoor(tmp_path / "tokens.txt")
