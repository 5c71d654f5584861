"""``deepgrow3d train``, as a user starts it: real processes, real kills."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from deepgrow3d_app.cases.prepared_case import CASE_FILE, IMAGE_FILE, LABELS_FILE, write_prepared_case
from deepgrow3d_app.cases.prepared_manifest import PreparedEntry, PreparedManifest
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.spec import CLASSIC_SPEC
from deepgrow3d_app.training.run_folder import RunFolder
from tests.integration.conftest import ROOT
from tests.integration.training import STRUCTURES, figures, generated_case, write_plan

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("one_core_and_no_gpu")]

TRUNK = str(ROOT / "sample-data" / "reference" / "ct-trunk")

KILLED_IN_A_STEP = """
import os, signal, torch
from deepgrow3d_app.cli import main
step, done = torch.optim.AdamW.step, []
def lethal(self, *arguments, **options):
    done.append(step(self, *arguments, **options))
    if len(done) == 34:  # weights are changed, their average and the annotators are not
        os.kill(os.getpid(), signal.SIGKILL)
torch.optim.AdamW.step = lethal
main()
"""

KILLED_IN_A_SAVE = """
import os, shutil, signal
from deepgrow3d_app.cli import main
from deepgrow3d_app.training.run_folder import RunFolder
write_state, saves = RunFolder.write_state, []
def counted(self, state):
    saves.append(state["step"])
    if len(saves) == 4:  # before the first step, then at 12 and 24
        shutil.copyfileobj = lethal
    write_state(self, state)
def lethal(content, file, length):
    whole = content.read()
    file.write(whole[: len(whole) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
RunFolder.write_state = counted
main()
"""

WITH_ITS_PEAK_MEMORY = """
import re
from pathlib import Path
from deepgrow3d_app.cli import app
app(standalone_mode=False)
print(re.search(r"VmHWM:.*", Path("/proc/self/status").read_text())[0])
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@pytest.mark.parametrize(
    ("program", "logged", "saved"),
    [(KILLED_IN_A_STEP, [15, 20, 30], 24), (KILLED_IN_A_SAVE, [15, 20, 30], 24)],
    ids=["in the middle of a step", "in the middle of a save"],
)
def test_kill_9_and_a_resumed_run_learn_what_an_unbroken_run_learns(
    launcher: Launcher, cases: str, program: str, logged: list[int], saved: int
) -> None:
    arguments = ["train", cases, "--spec", write_plan(launcher), "--steps", "45", "--output"]
    whole, broken = launcher.folder / "whole", launcher.folder / "broken"
    done = launcher.deepgrow3d(*arguments, "whole")
    assert done.returncode == 0, done.stderr
    killed = launcher.run([*python(program), *arguments, "broken"])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [line["step"] for line in figures(broken)] == logged
    state = RunFolder(broken).read_state()
    assert state is not None
    assert state["step"] == saved

    done = launcher.deepgrow3d(*arguments, "broken", "--resume")

    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in figures(whole)] == [15, 20, 30, 40, 45]
    assert figures(broken) == figures(whole)
    assert figures(whole)[-1]["validation"].keys() == {"1", "3", "5"}
    ours, theirs = (Checkpoint.load(folder / "model.safetensors") for folder in (broken, whole))
    assert ours.weights.keys() == theirs.weights.keys()
    assert [name for name, weight in ours.weights.items() if not torch.equal(weight, theirs.weights[name])] == []
    assert sorted(path.name for path in broken.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_memory_does_not_grow_with_the_number_of_cases(launcher: Launcher) -> None:
    """Each patch is of another case, and most of a case is looked at for it."""
    shape = (96, 96, 96)
    case = generated_case("case", shape, 1.0, 0)
    plan = write_plan(launcher, max_clicks=1, synthetic_share=0, validate_every=1000, save_every=1000)
    (launcher.folder / "first").mkdir()
    write_prepared_case(case, launcher.folder / "first", "", ())
    box = (slice(0, 40),) * 3
    peaks_mb = []
    for count in (5, 200):
        folder = launcher.folder / f"cases{count}"
        entries = []
        for number in range(count):
            path = folder / "cases" / f"case{number:03}"
            path.mkdir(parents=True)
            shutil.copy(launcher.folder / "first" / CASE_FILE, path)
            for name, array in ((IMAGE_FILE, case.volume.array), (LABELS_FILE, case.labels)):
                # Sparse on disk; in memory a page that is looked at counts, written or not.
                stored = np.lib.format.open_memmap(path / name, "w+", array.dtype, shape)
                stored[box] = array[box]
            entries.append(PreparedEntry(path.name, path.name, "training", f"cases/{path.name}"))
        PreparedManifest(None, STRUCTURES, tuple(entries), STRUCTURES).write(folder)
        arguments = ["train", folder.name, "--spec", plan, "--steps", "120", "--output", f"run{count}"]
        done = launcher.run([*python(WITH_ITS_PEAK_MEMORY), *arguments])
        assert done.returncode == 0, done.stderr
        peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
        assert peak is not None, done.stdout
        peaks_mb.append(int(peak[1]) / 1000)
    added_mb = 195 * (case.volume.array.nbytes + case.labels.nbytes) / 1e6
    assert added_mb > 500
    assert peaks_mb[1] - peaks_mb[0] < 60


@pytest.mark.timeout(900)  # each step looks 15 times through a large network: minutes, on a slow processor
def test_the_seed_configuration_trains_the_classic_network(launcher: Launcher) -> None:
    command = [sys.executable, "-m", "deepgrow3d_app", "train", TRUNK, "--spec", "seed", "--steps", "2"]
    done = subprocess.run(
        [*command, "--output", "run"], cwd=launcher.folder, capture_output=True, text=True, check=False, timeout=880
    )
    assert done.returncode == 0, done.stderr
    checkpoint = Checkpoint.load(launcher.folder / "run" / "model.safetensors")
    assert checkpoint.spec == CLASSIC_SPEC
    assert checkpoint.origin["steps"] == "2"
    checkpoint.network()
    assert [(line["step"], np.isfinite(line["loss"])) for line in figures(launcher.folder / "run")] == [(2, True)]


BAD_ARGUMENTS = {
    "an unknown plan": (["--spec", "best"], ("'best'", "default or seed")),
    "no steps": (["--steps", "0"], ("after 0 steps", "positive")),
    "no run to resume": (["--resume"], ("no run", "Leave --resume out")),
    "no run to resume by another plan": (["--resume", "--spec", "seed"], ("no run", "Leave --resume out")),
    "no such cases": (["--steps", "1"], ("nowhere",)),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_a_refusal_is_one_line_and_leaves_no_network(launcher: Launcher, case: str) -> None:
    arguments, says = BAD_ARGUMENTS[case]
    done = launcher.deepgrow3d("train", "nowhere", *arguments, "--output", "run")
    assert done.returncode == (1 if case == "no such cases" else 2), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert [text for text in says if text not in done.stderr] == [], done.stderr
    assert list((launcher.folder / "run").glob("*.*t*s*")) == []


def test_a_run_is_never_overwritten_by_a_new_one(launcher: Launcher) -> None:
    run = launcher.folder / "run"
    run.mkdir()
    (run / "state.pt").write_bytes(b"of another run")
    done = launcher.deepgrow3d("train", TRUNK, "--steps", "1", "--output", "run")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "holds a run" in done.stderr
    assert "--resume" in done.stderr
    assert (run / "state.pt").read_bytes() == b"of another run"
    assert [path.name for path in run.iterdir() if not path.name.startswith(".")] == ["state.pt"]
