import subprocess
import sys

import pytest

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.retraining.job import JobFolder, JobSetup, JobState
from deepgrow3d_app.retraining.order import RetrainingOrder


@pytest.fixture
def job(tmp_path):
    return JobFolder(tmp_path)


def state(**changes):
    return JobState(id="0001", started=5.0, total_steps=10, total_epochs=2, **changes)


def test_a_state_is_read_as_it_was_written(job):
    written = state(dice={1: 0.5, 3: 0.75}, curve=[(0, 0.25), (5, 0.625)], cases=(4, 1))
    job.write_state(written)
    assert job.state() == written
    assert written.best_dice == 0.625
    assert state().best_dice == 0


def test_a_damaged_state_is_named(job):
    with pytest.raises(TrainingError, match=r"state\.json' cannot be read"):
        job.state()
    job.state_file.write_text("{")
    with pytest.raises(TrainingError, match="is damaged"):
        job.state()


@pytest.mark.parametrize("content", ["", '{"order": {', '{"order": {"seed": -1}, "client": "anna"}'])
def test_a_damaged_setup_is_named(job, content):
    with pytest.raises(TrainingError, match=r"job\.json' cannot be read"):
        job.setup()
    job.setup_file.write_text(content)
    with pytest.raises(TrainingError, match=r"job\.json' is damaged\. Remove the folder"):
        job.setup()


def test_what_can_be_gone_on_with_has_a_setup_and_a_state(job, tmp_path):
    setup = JobSetup(
        order=RetrainingOrder(),
        client="anna",
        prepared=tmp_path / "cases",
        replay=(),
        reference=None,
        reference_structures=(),
    )
    job.write_setup(setup)
    job.write_state(state())
    job.check()
    assert job.setup() == setup
    for file in (job.setup_file, job.state_file):
        content = file.read_bytes()
        file.write_bytes(content[:-3])
        with pytest.raises(TrainingError, match=f"{file.name}' is damaged"):
            job.check()
        file.write_bytes(content)


def test_the_last_lines(job):
    assert job.last_lines(3) == []
    job.log_file.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert job.last_lines(2) == ["line 998", "line 999"]


HOLDS = """
import sys
from pathlib import Path
from deepgrow3d_app.retraining.job import JobFolder
with JobFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_it_is_at_work_while_its_process_lives_however_that_ends(job):
    assert not job.is_at_work()
    command = [sys.executable, "-c", HOLDS, str(job.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert job.is_at_work()
        other.kill()
    assert not job.is_at_work()
