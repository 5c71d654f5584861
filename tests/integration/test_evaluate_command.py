"""``deepgrow3d evaluate`` and its companions, as a user starts them: real processes, a real server, a real kill."""

from __future__ import annotations

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

import pytest

from deepgrow3d_app.evaluation.results import Results

if TYPE_CHECKING:
    from tests.integration.launcher import Launcher, Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CASE = str(ROOT / "sample-data" / "reference" / "ct-trunk")
SMALL = ("--structures", "spleen,adrenal_gland_left")


def rounds_by_trial(file: Path) -> dict[Any, Any]:
    return {
        (trial.case, trial.structure, trial.user, trial.hand): [
            (r.index, r.is_positive, r.dice, r.nsd, r.hd95_mm) for r in trial.rounds
        ]
        for trial in Results.load(file).trials
    }


def test_an_evaluation_writes_results_summary_report_and_masks(launcher: Launcher) -> None:
    done = launcher.deepgrow3d("evaluate", CASE, *SMALL, "--clicks", "3", "--noisy", "--output", "scores")
    assert done.returncode == 0, done.stderr
    assert "spleen" in done.stdout
    assert "noisy user" in " ".join(done.stdout.split())
    assert "/" not in json.loads((launcher.folder / "scores" / "results.json").read_text())["command"]
    results = Results.load(launcher.folder / "scores" / "results.json")
    assert [(t.structure, t.user, len(t.rounds)) for t in results.trials] == [
        (structure, user, 3) for structure in ("spleen", "adrenal_gland_left") for user in ("perfect", "noisy")
    ]
    report = (launcher.folder / "scores" / "report.html").read_text()
    assert "adrenal_gland_left" in report
    assert not re.search(r"(src|href)=[\"']?https?:", report), "The report loads something from a network."
    assert len((launcher.folder / "scores" / "summary.csv").read_text().splitlines()) == 1 + 2 * (2 + 1)
    assert len(list((launcher.folder / "scores" / "masks").rglob("*.nii.gz"))) == 4


def test_several_hands_are_told_of_and_need_a_noisy_user(launcher: Launcher) -> None:
    arguments = ["evaluate", CASE, "--structures", "adrenal_gland_left", "--clicks", "1", "--hands", "2"]
    refused = launcher.deepgrow3d(*arguments, "--output", "refused")
    assert refused.returncode != 0
    assert "--hands 2 is given, but nobody is noisy. Add --noisy." in " ".join(refused.stderr.split())
    assert not (launcher.folder / "refused").exists()
    done = launcher.deepgrow3d(*arguments, "--noisy", "--output", "hands")
    assert done.returncode == 0, done.stderr
    assert "noisy user (2 hands)" in " ".join(done.stdout.split())
    results = Results.load(launcher.folder / "hands" / "results.json")
    assert [(t.user, t.hand) for t in results.trials] == [("perfect", 0), ("noisy", 0), ("noisy", 1)]


def test_kill_9_and_a_second_run_find_what_an_unbroken_run_finds(launcher: Launcher) -> None:
    arguments = ["evaluate", CASE, "--structures", "spleen,kidney_left,adrenal_gland_left", "--clicks", "3"]
    assert launcher.deepgrow3d(*arguments, "--output", "whole").returncode == 0
    journal = launcher.folder / "killed" / "unfinished.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "deepgrow3d_app", *arguments, "--output", str(journal.parent)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (journal.exists() and journal.read_text().count("\n") >= 2):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = journal.read_text().count("\n") - 1
    assert 1 <= finished < 3
    assert not (journal.parent / "results.json").exists()

    assert launcher.deepgrow3d(*arguments, "--output", "killed").returncode == 0

    assert not journal.exists()
    whole = rounds_by_trial(launcher.folder / "whole" / "results.json")
    assert rounds_by_trial(journal.parent / "results.json") == whole
    again = launcher.deepgrow3d("evaluate", CASE, *SMALL, "--clicks", "3", "--output", "killed")
    assert again.returncode == 2
    assert "holds another evaluation" in again.stderr


def test_a_server_scores_what_the_network_scores(launcher: Launcher) -> None:
    (launcher.folder / "studies").mkdir()
    server = launcher.serve(launcher.folder / "studies")  # with PyTorch, as `evaluate`
    arguments = ["evaluate", CASE, *SMALL, "--clicks", "5", "--noisy"]
    assert launcher.deepgrow3d(*arguments, "--output", "here").returncode == 0
    done = launcher.deepgrow3d(*arguments, "--server", server.url + "/", "--output", "there")
    assert done.returncode == 0, done.stderr
    here, there = (rounds_by_trial(launcher.folder / name / "results.json") for name in ("here", "there"))
    assert here.keys() == there.keys()
    for trial, rounds in here.items():
        for ours, theirs in zip(rounds, there[trial], strict=True):
            assert theirs[:2] == ours[:2], trial
            assert theirs[2] == pytest.approx(ours[2], abs=0.005), trial
    assert not list((server.studies / ".deepgrow3d" / "sessions").glob("*/*")), "A session was left open."


def test_two_evaluations_are_compared(launcher: Launcher) -> None:
    for name, method in (("a", "random-walker"), ("b", "graph-cut")):
        done = launcher.deepgrow3d("evaluate", CASE, *SMALL, "--clicks", "3", "--method", method, "--output", name)
        assert done.returncode == 0, done.stderr
    done = launcher.deepgrow3d("compare", "a", "b/results.json")
    assert done.returncode == 0, done.stderr
    assert "spleen" in done.stdout
    assert "adrenal_gland_left" in done.stdout


def test_a_studies_folder_with_final_labels_can_be_evaluated(launcher: Launcher, server: Server) -> None:
    shutil.copytree(server.studies, launcher.folder / "studies")
    done = launcher.deepgrow3d("evaluate", "studies", "--clicks", "1", "--output", "scores")
    assert done.returncode == 0, done.stderr
    trials = Results.load(launcher.folder / "scores" / "results.json").trials
    assert {(trial.case, trial.structure) for trial in trials} == {("labelled", f"label {n}") for n in (1, 2, 3, 4)}


def test_a_prepared_folder_can_be_evaluated(launcher: Launcher) -> None:
    hippocampus = str(ROOT / "sample-data" / "reference" / "mr-hippocampus")
    done = launcher.deepgrow3d("prepare", hippocampus, "--spacing", "stored", "--output", "prepared")
    assert done.returncode == 0, done.stderr
    assert "2 structures; 4 prepared now, 0 left out" in done.stdout
    again = launcher.deepgrow3d("prepare", hippocampus, "--spacing", "stored", "--output", "prepared")
    assert "0 prepared now" in again.stdout
    for cases, output in (("prepared", "a"), (hippocampus, "b")):
        done = launcher.deepgrow3d("evaluate", cases, "--clicks", "1", "--held-out", "2", "--output", output)
        assert done.returncode == 0, done.stderr
    # The stored files are in RAS order and 1 mm, so that preparing changes nothing.
    a, b = (rounds_by_trial(launcher.folder / name / "results.json") for name in ("a", "b"))
    assert a == b
    assert len(a) == 2 * 2
    assert launcher.deepgrow3d("evaluate", "prepared", "--clicks", "1", "--output", "c").returncode == 0
    manifest = json.loads((launcher.folder / "prepared" / "manifest.json").read_text())
    validation = {case["name"] for case in manifest["cases"] if case["split"] == "validation"}
    assert 0 < len(validation) < 4
    assert {case for case, *_ in rounds_by_trial(launcher.folder / "c" / "results.json")} == validation


BAD_ARGUMENTS = {
    "no such folder": (["nowhere"], "nowhere"),
    "no such structure": ([CASE, "--structures", "heart"], "'heart'"),
    "no such method": ([CASE, "--method", "magic"], "'magic'"),
    "a server without an address": ([CASE, "--method", "server"], "--server http://"),
    "an address nobody asks": ([CASE, "--method", "network", "--server", "http://127.0.0.1:9"], "--method server"),
    "a checkpoint nobody uses": ([CASE, "--method", "graph-cut", "--checkpoint", "x.safetensors"], "--method network"),
    "nobody at the address": ([CASE, "--server", "http://127.0.0.1:9"], "does not answer"),
    "no checkpoint": ([CASE, "--checkpoint", "none.safetensors"], "none.safetensors"),
    "too many held out": ([CASE, "--held-out", "7"], "7"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_a_refusal_is_one_line_and_writes_nothing(launcher: Launcher, case: str) -> None:
    arguments, says = BAD_ARGUMENTS[case]
    done = launcher.deepgrow3d("evaluate", *arguments, "--output", "scores")
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert not (launcher.folder / "scores").exists()


def test_the_model_card_is_what_the_committed_results_say(launcher: Launcher) -> None:
    page = ROOT / "docs" / "model.md"
    folders = [str(ROOT / "docs" / "evaluation" / name) for name in ("ct-trunk", "mr-hippocampus")]
    sources = str(ROOT / "docs" / "evaluation" / "sources.json")
    ablation = ROOT / "docs" / "ablation.json"
    parts = ["--ablation", str(ablation)] if ablation.exists() else []
    done = launcher.deepgrow3d("model-card", *folders, "--sources", sources, *parts, "--output", "model.md")
    assert done.returncode == 0, done.stderr

    def without_command(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("deepgrow3d model-card")]

    assert without_command((launcher.folder / "model.md").read_text()) == without_command(page.read_text())
