"""What is kept of requests, on an application of a few routes."""

import json
import logging
import shutil

from deepgrow3d_app.serving.security.audit import AuditLog, hash_of
from tests.unit.serving.security.conftest import audit, bearer, client


def test_the_audit_log_goes_on_where_it_was_cleared_away(tmp_path):
    log = AuditLog(tmp_path / "kept" / "audit")
    shutil.rmtree(tmp_path / "kept" / "audit")
    log.write({"route": "/image"})
    assert len(list((tmp_path / "kept" / "audit").iterdir())) == 1
    shutil.rmtree(tmp_path / "kept")
    log.write({"route": "/image"})
    assert not (tmp_path / "kept").exists(), "where the disk is gone, nothing takes its place"


def test_the_audit_log_tells_who_did_what_and_no_patient_s_name(tmp_path, tokens):
    api = client(tmp_path, tokens_file=tokens["file"])
    answered = api.get("/image", params={"image": "Doe^Jane"}, headers=bearer(tokens["user"]))
    api.post("/train", headers=bearer(tokens["user"]))
    api.get("/image", params={"image": "Doe^Jane"})
    api.get("/health/live")
    lines = audit(tmp_path)
    assert [(line["who"], line["method"], line["route"], line["status"]) for line in lines] == [
        ("the-user", "GET", "/image", 200),
        ("the-user", "POST", "/train", 403),
        (None, "GET", "/image", 401),
    ]
    assert lines[0]["subjects"] == {"image": hash_of("Doe^Jane")}
    assert lines[0]["role"] == "user"
    assert lines[0]["from"] == "127.0.0.1"
    assert lines[0]["request"] == answered.headers["x-request-id"]
    assert "Jane" not in json.dumps(lines)
    assert tokens["user"] not in json.dumps(lines)


def test_the_audit_log_tells_which_series_a_viewer_opened(tmp_path):
    client(tmp_path).get("/proxy/dicom/wado/studies/1.2.3/series/1.2.3.4/metadata")
    (line,) = audit(tmp_path)
    assert line["subjects"] == {"studies": hash_of("1.2.3"), "series": hash_of("1.2.3.4")}
    assert line["service"] == "wado"


def test_the_audit_log_names_what_a_request_made(tmp_path):
    assert client(tmp_path).put("/session").is_success
    (line,) = audit(tmp_path)
    assert line["subjects"] == {"session_id": hash_of("the-new-one")}


def test_what_was_refused_does_not_bring_text_into_the_audit_log(tmp_path):
    client(tmp_path).get("/nothing", params={"tag": "Doe, Jane"})
    (line,) = audit(tmp_path)
    assert "Jane" not in json.dumps(line)


def test_an_audit_log_that_cannot_be_written_stops_no_work(tmp_path, caplog):
    (tmp_path / "audit").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR):
        assert client(tmp_path).get("/image").status_code == 200
    assert "cannot be written" in caplog.text
    AuditLog(None).write({"nothing": "is kept"})
