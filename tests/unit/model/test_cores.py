"""How many cores may be used: control groups as the kernel shows them, in files made here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from benchmarks.core_quota import MEMBERS, group_with_quota
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model import cores
from deepgrow3d_app.model.cores import limit_threads, quota_in_cores, usable_cores


@pytest.fixture
def quota_of(tmp_path):
    """The quota of a process with the given lines of /proc/self/cgroup, in the given files of /sys/fs/cgroup."""

    def quota(membership: str, files: dict[str, str]) -> float | None:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return quota_in_cores(tmp_path / "membership", tmp_path / "groups")

    return quota


@pytest.fixture
def on_eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that what is set in the test is taken back after it
    monkeypatch.delenv("OMP_NUM_THREADS")


def test_version_2_in_a_container_that_sees_itself_at_the_top(quota_of):
    assert quota_of("0::/\n", {"cpu.max": "250000 100000\n"}) == 2.5


def test_version_2_the_least_of_a_service_and_what_it_lies_in(quota_of):
    files = {
        "a.slice/cpu.max": "max 100000\n",
        "a.slice/b.service/cpu.max": "400000 100000\n",
        "other.slice/cpu.max": "100000 100000\n",
    }
    assert quota_of("0::/a.slice/b.service\n", files) == 4
    assert quota_of("0::/a.slice/b.service\n", {"a.slice/cpu.max": "150000 50000\n"}) == 3


VERSION_1 = "4:memory:/docker/0a\n2:cpu,cpuacct:/docker/0a\n1:name=systemd:/docker/0a\n0::/\n"


def test_version_1_on_the_host(quota_of):
    files = {"cpu/docker/0a/cpu.cfs_quota_us": "50000\n", "cpu/docker/0a/cpu.cfs_period_us": "100000\n"}
    assert quota_of(VERSION_1, files) == 0.5


def test_version_1_in_a_folder_of_all_controllers(quota_of):
    files = {"cpu,cpuacct/docker/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/docker/cpu.cfs_period_us": "100000\n"}
    assert quota_of(VERSION_1, files) == 1.5


def test_version_1_in_a_container_that_is_told_its_path_on_the_host(quota_of):
    assert quota_of(VERSION_1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}) == 3


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": ""},
        {"cpu.max": "100000 0\n"},
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        {"cpu/cpu.cfs_quota_us": "100000\n"},
    ],
)
def test_without_a_quota(quota_of, files):
    assert quota_of(VERSION_1, files) is None


def test_without_control_groups(tmp_path):
    assert quota_in_cores(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (0.5, 1), (1.0, 1), (2.9, 2), (3.0, 3), (64.0, 8)])
@pytest.mark.usefixtures("on_eight_cores")
def test_whole_cores_of_those_that_are_visible(monkeypatch, quota, expected):
    monkeypatch.setattr(cores, "quota_in_cores", lambda: quota)
    assert usable_cores() == expected
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == (None if expected == 8 else str(expected))


@pytest.mark.usefixtures("on_eight_cores")
def test_whoever_runs_it_has_the_last_word(monkeypatch):
    monkeypatch.setattr(cores, "quota_in_cores", lambda: 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "6"


COMMAND = """
import contextlib, os, sys
with open(sys.argv.pop(), "w") as members:
    members.write(str(os.getpid()))
from deepgrow3d_app.cli import main
sys.argv.append("--version")
with contextlib.suppress(SystemExit):
    main()
import torch
print(torch.get_num_threads())
"""


@pytest.fixture
def group_of_one_core():
    """A control group with a quota of one core; only who may set quotas can make one."""
    with contextlib.ExitStack() as held:
        try:
            group = held.enter_context(group_with_quota(1))
        except InvalidRequest as error:
            pytest.skip(str(error))
        yield group


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="one core is all there is")
def test_a_command_in_a_group_of_one_core_computes_in_one_thread(group_of_one_core):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", COMMAND, str(group_of_one_core / MEMBERS)]
    run = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True, env=environment)
    assert run.stdout.split()[-1] == "1"
