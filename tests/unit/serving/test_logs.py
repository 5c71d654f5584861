import json
import logging

import pytest

from deepgrow3d_app.serving.logs import set_up_logs
from deepgrow3d_app.serving.security.request_id import current_request


@pytest.fixture(autouse=True)
def as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_for_programs(capsys):
    set_up_logs("json")
    token = current_request.set("0123456789abcdef")
    logging.getLogger("deepgrow3d_app.x").info("%s was saved", "it")
    current_request.reset(token)
    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("deepgrow3d_app.x").exception("outside of a request")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["message"] == "it was saved"
    assert first["level"] == "INFO"
    assert first["logger"] == "deepgrow3d_app.x"
    assert first["request"] == "0123456789abcdef"
    assert "time" in first
    assert second["request"] == "-"
    assert "ValueError: oops" in second["exc_info"], "a traceback is one line, too"


def test_lines_for_people(capsys):
    set_up_logs("text")
    token = current_request.set("0123456789abcdef")
    logging.getLogger("deepgrow3d_app.x").warning("the disk is nearly full")
    current_request.reset(token)
    assert "WARNING deepgrow3d_app.x [01234567]: the disk is nearly full" in capsys.readouterr().err
