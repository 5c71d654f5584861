import errno
from http import HTTPStatus

import pytest
from fastapi.exceptions import RequestValidationError
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException

from deepgrow3d_app import errors
from deepgrow3d_app.serving.faults import status_and_reason


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnreadableVolume("x.nii.gz", "it is truncated"), 400),
        (errors.UnsupportedVolume("x.nii.gz", "it has 4 dimensions", "Send one 3-D image."), 400),
        (errors.ClickOutsideVolume((9, 0, 0), (8, 8, 8)), 400),
        (errors.NoForegroundClick(), 400),
        (errors.InvalidRequest("'tag' is '../x'."), 400),
        (errors.LabelMismatch("The label has 7 x 8 x 8 voxels."), 400),
        (errors.NotFound("There is no image 'x'."), 404),
        (errors.NotSignedIn("Send a token."), 401),
        (errors.NotAllowed("This takes the role 'admin'."), 403),
        (errors.Busy("Try again."), 429),
    ],
)
def test_what_the_caller_can_mend_is_told_in_full(error, status):
    assert status_and_reason(error) == (HTTPStatus(status), str(error))


@pytest.mark.parametrize(
    "error",
    [
        errors.CheckpointError("Version 1 of 'deepgrow3d' is damaged. Choose another version."),
        errors.EngineError("OpenVINO is not installed. Choose another engine."),
        errors.TrainingError("'0001/state.json' is damaged. Remove the folder of that training."),
        errors.OutOfMemory("There is no memory left for an answer. Close other programs."),
    ],
)
def test_what_the_server_lacks_is_told_in_full(error):
    assert status_and_reason(error) == (503, str(error))


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (ImageNotFoundException("Image x not found"), (404, "Image x not found")),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "No model"), (400, "No model")),
    ],
)
def test_errors_of_monai_label_keep_their_text(error, answer):
    assert status_and_reason(error) == answer


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        FileNotFoundError(errno.ENOENT, "secret", "/secret"),
        MONAILabelException(MONAILabelError.SERVER_ERROR, "secret"),
    ],
)
def test_our_own_faults_keep_their_text_to_the_log(error):
    status, reason = status_and_reason(error)
    assert status == 500
    assert "secret" not in reason


def test_a_full_disk_is_named():
    status, reason = status_and_reason(OSError(errno.ENOSPC, "No space left on device", "/secret"))
    assert status == 507
    assert "disk is full" in reason
    assert "secret" not in reason


def test_a_disk_that_cannot_be_written_is_named():
    assert status_and_reason(OSError(errno.EROFS, "Read-only file system", "/secret"))[0] == 507
    status, reason = status_and_reason(PermissionError(errno.EACCES, "Permission denied", "/secret"))
    assert status == 503
    assert "secret" not in reason


def test_refused_parameters_become_one_text():
    error = RequestValidationError(
        [
            {"type": "missing", "loc": ("query", "image"), "msg": "Field required", "input": None},
            {"type": "enum", "loc": ("query", "output"), "msg": "Input should be 'all'", "input": "zip"},
        ]
    )
    assert status_and_reason(error) == (
        422,
        "query.image: Field required; query.output is 'zip': Input should be 'all'.",
    )
