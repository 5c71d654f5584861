import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
import torch

from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.cores import usable_cores
from deepgrow3d_app.training.patch_workers import PatchWorkers, workers_for
from deepgrow3d_app.training.ranks import Ranks


def test_workers_draw_the_patches_that_are_drawn_without_them(make_patches):
    source = make_patches()
    with PatchWorkers(source, 2) as workers:
        workers.expect([0, 1], 0)
        for slot, number in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 7), (2, 3)):
            ahead, here = workers.draw(slot, number), source.draw(slot, number)
            assert torch.equal(ahead.image, here.image)
            assert torch.equal(ahead.truth, here.truth)
            assert ahead.edge_mm == here.edge_mm


def test_a_killed_worker_is_told(make_patches):
    with PatchWorkers(make_patches(), 1) as workers:
        workers.draw(0, 0)
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        with pytest.raises(TrainingError, match="was killed, perhaps for lack of memory"):
            workers.draw(0, 5)


def test_ctrl_c_leaves_workers_at_work_and_a_damaged_case_is_told_as_it_is(make_patches, group):
    """Ctrl+C reaches all processes of a terminal, and is for the first of them to answer."""
    with PatchWorkers(make_patches(), 1) as workers:
        workers.draw(0, 0)
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        workers.draw(0, 5)
        group.training[0].source.image.write_bytes(b"no array")
        with pytest.raises(TrainingError, match=r"Cannot read '.*image.npy'.* prepare the cases again"):
            workers.draw(0, 9)


def test_workers_end_with_a_parent_that_is_killed():
    program = """
        import time, multiprocessing
        from deepgrow3d_app.training.patch_workers import PatchWorkers
        if __name__ == "__main__":
            workers = PatchWorkers(None, 1)
            try:
                workers.draw(0, 0)
            except AttributeError:
                pass
            print(multiprocessing.active_children()[0].pid, flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    ends = time.monotonic() + 20
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_only_a_gpu_is_worth_workers():
    assert workers_for(Ranks(0, 1, torch.device("cpu"))) == 0
    assert workers_for(Ranks(0, 1, torch.device("cuda"))) == max(1, usable_cores() - 1)


def test_the_cores_of_a_machine_are_shared_by_its_own_processes(monkeypatch):
    """Two machines of 64 cores and 8 GPUs; then a job that may use 12 of the cores."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    assert workers_for(Ranks(3, 16, torch.device("cuda"))) == 7
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    assert workers_for(Ranks(3, 16, torch.device("cuda"))) == 1
