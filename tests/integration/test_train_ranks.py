"""``deepgrow3d train`` in several processes: they learn what one learns, and end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import psutil
import pytest

from deepgrow3d_app.training.plan import Recipe
from deepgrow3d_app.training.run_folder import RunFolder
from tests.integration.training import figures, generated_case, write_plan

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("one_core_and_no_gpu")]

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

IN_FLOAT32 = """
import os, sys
import deepgrow3d_app.training.trainer as trainer
from deepgrow3d_app.cli import main
trainer.reduced_precision = lambda device: None  # so that nothing but the order of sums differs
run = os.path.abspath(sys.argv[sys.argv.index("--output") + 1])
def refuse(event, arguments):
    writes = event in ("os.rename", "os.mkdir", "os.remove") or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if writes and os.path.abspath(str(arguments[0])).startswith(run):
        raise RuntimeError(f"another process than the first writes: {event} {arguments}")
if os.environ.get("RANK", "0") != "0":
    sys.addaudithook(refuse)
main()
"""


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in figures(folder)]


def test_two_processes_learn_what_one_learns_and_only_the_first_writes(launcher: Launcher) -> None:
    studies = launcher.folder / "studies"
    for kind in ("images", "labels"):
        (studies / kind).mkdir(parents=True)
    for number in range(3):
        case = generated_case(f"case{number}", (40, 36, 32), 3.0, number)
        for kind, voxels in (("images", case.volume.array), ("labels", case.labels)):
            nib.save(nib.Nifti1Image(voxels, case.volume.affine), studies / kind / f"{case.name}.nii.gz")
    (launcher.folder / "in_float32.py").write_text(IN_FLOAT32)
    plan = write_plan(launcher, validate_every=3, save_every=6, batch_size=4)
    arguments = ["in_float32.py", "train", "studies", "--held-out", "1", "--spec", plan, "--steps", "12", "--output"]

    alone = launcher.run([sys.executable, *arguments, "alone"])
    together = launcher.run([*TORCHRUN, *arguments, "together"])

    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    assert losses(launcher.folder / "together") == pytest.approx(losses(launcher.folder / "alone"), rel=1e-3)
    assert [line["step"] for line in figures(launcher.folder / "together")] == [3, 6, 9, 12]
    assert together.stdout.count("model.safetensors: 12 steps") == 1
    states = [RunFolder(launcher.folder / name).read_state() for name in ("alone", "together")]
    slots = [sorted(one["slot"] for one in state["annotations"]) for state in states if state is not None]
    assert slots == [list(range(4 * Recipe().batches_in_turn))] * 2


def test_when_one_process_is_killed_the_other_ends_too(launcher: Launcher, cases: str) -> None:
    run = launcher.folder / "run"
    arguments = ["train", cases, "--spec", write_plan(launcher, save_every=1), "--steps", "100000", "--output"]
    environment = {**os.environ, "HOME": str(launcher.folder), "TMPDIR": str(launcher.folder)}
    torchrun = subprocess.Popen(
        [*TORCHRUN, "-m", "deepgrow3d_app", *arguments, str(run)],
        cwd=launcher.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not ((run / "log.jsonl").exists() and len(figures(run)) > 0):
            assert torchrun.poll() is None
            time.sleep(0.05)
        ranks = {
            child.environ()["RANK"]: child
            for child in psutil.Process(torchrun.pid).children(recursive=True)
            if "RANK" in child.environ()
        }
        assert ranks.keys() == {"0", "1"}
        ranks["1"].kill()
        assert torchrun.wait(timeout=60) != 0
        assert psutil.wait_procs(list(ranks.values()), timeout=10)[1] == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(torchrun.pid, signal.SIGKILL)
    state = RunFolder(run).read_state()
    assert state is not None
    assert state["step"] >= figures(run)[-1]["step"] - 1


def test_what_the_first_process_refuses_is_said_once_and_ends_all(launcher: Launcher, cases: str) -> None:
    plan = write_plan(launcher, batch_size=2)
    (launcher.folder / "empty").mkdir()
    refused = launcher.run(
        [*TORCHRUN, "-m", "deepgrow3d_app", "train", "empty", "--spec", plan, "--steps", "1", "--output", "run"]
    )
    assert refused.returncode != 0
    assert refused.stderr.count("No labelled cases in 'empty'") == 1, refused.stderr
    assert "deepgrow3d_app/training/run.py" not in refused.stderr  # no traceback of the one that was left alone
