"""``deepgrow3d train``, as a user starts it: real processes, real kills, several ranks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch

from deepgrow3d_app.cases.labelled_case import LabelledCase
from deepgrow3d_app.cases.prepared_case import CASE_FILE, IMAGE_FILE, LABELS_FILE, write_prepared_case
from deepgrow3d_app.cases.prepared_manifest import PreparedEntry, PreparedManifest
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.spec import CLASSIC_SPEC
from deepgrow3d_app.training.plan import Recipe
from deepgrow3d_app.training.run_folder import RunFolder
from deepgrow3d_app.volume.volume import Volume

if TYPE_CHECKING:
    from tests.integration.conftest import Launcher

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TRUNK = str(ROOT / "sample-data" / "reference" / "ct-trunk")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
STRUCTURES = {"ball": 1, "bar": 2}

# Lines of the log come at 15, 20, 30, 40 and 45 steps, saves at 12, 24 and 36: neither hides what the other forgets.
PLAN: dict[str, dict[str, object]] = {
    "spec": {"channels": [4, 8, 8], "patch_shape": [32, 32, 32], "spacing_mm": [4, 4, 4], "walker_sigmas": [0.0225]},
    "recipe": {"save_every": 12, "validate_every": 15, "validation_structures": 2, "warmup_steps": 5},
}

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

WITH_ITS_PEAK_MEMORY = """
import re
from pathlib import Path
from deepgrow3d_app.cli import app
app(standalone_mode=False)
print(re.search(r"VmHWM:.*", Path("/proc/self/status").read_text())[0])
"""


@pytest.fixture(autouse=True)
def one_core_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums come in one order: losses of two runs can be compared."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def cases(launcher: Launcher) -> str:
    """Four generated CTs, prepared, one of them for validation."""
    folder = launcher.folder / "cases"
    entries = []
    for number in range(4):
        case = generated_case(f"case{number}", (40, 36, 32), 3.0, number)
        path = folder / "cases" / case.name
        path.mkdir(parents=True)
        write_prepared_case(case, path, "", ())
        split = "validation" if number == 3 else "training"
        entries.append(PreparedEntry(case.name, case.name, split, f"cases/{case.name}"))  # type: ignore[arg-type]
    PreparedManifest(None, STRUCTURES, tuple(entries), STRUCTURES).write(folder)
    return "cases"


def generated_case(name: str, shape: tuple[int, int, int], edge_mm: float, seed: int) -> LabelledCase:
    """A ball and a bar of soft tissue in fat, and noise."""
    generator = np.random.default_rng(seed)
    i, j, k = np.ogrid[tuple(slice(0, extent) for extent in shape)]
    middle = np.array(shape) / 2 + generator.uniform(-3, 3, 3)
    radius = 0.22 * min(shape)
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 4:30, 3:9] = STRUCTURES["bar"]
    ball = (i - middle[0]) ** 2 + (j - middle[1]) ** 2 + (k - middle[2]) ** 2 < radius**2
    labels[ball] = STRUCTURES["ball"]
    voxels = np.choose(labels, (-100, 60, 140)) + generator.normal(0, 15, shape)
    affine = np.diag((edge_mm, edge_mm, edge_mm, 1.0))
    return LabelledCase(name, Volume(voxels.astype(np.int16), affine, modality="CT"), labels, STRUCTURES)


def write_plan(launcher: Launcher, **recipe: int) -> str:
    """The tiny plan, in a file."""
    content = {**PLAN, "recipe": {**PLAN["recipe"], **recipe}}
    (launcher.folder / "plan.json").write_text(json.dumps(content))
    return "plan.json"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log, without times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in figures(folder)]


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


def test_what_the_first_process_refuses_is_said_once_and_ends_all(launcher: Launcher, cases: str) -> None:
    plan = write_plan(launcher, batch_size=2)
    (launcher.folder / "empty").mkdir()
    refused = launcher.run(
        [*TORCHRUN, "-m", "deepgrow3d_app", "train", "empty", "--spec", plan, "--steps", "1", "--output", "run"]
    )
    assert refused.returncode != 0
    assert refused.stderr.count("No labelled cases in 'empty'") == 1, refused.stderr
    assert "deepgrow3d_app/training/run.py" not in refused.stderr  # no traceback of the one that was left alone
