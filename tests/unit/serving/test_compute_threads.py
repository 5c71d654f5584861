import os
import subprocess
import sys
import threading

import anyio
import pytest
import torch

from deepgrow3d_app.serving.compute_threads import ComputeThreads, aside
from deepgrow3d_app.serving.security.request_id import current_request

TEAMS = """
import os, time, torch
from deepgrow3d_app.serving.compute_threads import aside
torch.set_num_threads(4)
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
during = aside(lambda: (torch.ones(200, 200, 100).exp_(), threads())[1])
for _ in range(1000):  # they are told to end, and do so a moment later
    if threads() == before:
        break
    time.sleep(0.01)
print(before, during, threads())
"""


def test_calls_share_one_thread_that_is_not_the_callers():
    async def scenario():
        compute = ComputeThreads(1)
        idents = {await compute.run(threading.get_ident) for _ in range(5)}
        assert len(idents) == 1
        assert threading.get_ident() not in idents
        with pytest.raises(ZeroDivisionError):
            await compute.run(lambda: 1 // 0)

    anyio.run(scenario)


def test_threads_share_the_cores():
    async def scenario():
        cores = torch.get_num_threads()
        try:
            torch.set_num_threads(6)
            compute = ComputeThreads(3)
            assert await compute.run(torch.get_num_threads) == 2
        finally:
            torch.set_num_threads(cores)

    anyio.run(scenario)


def test_a_call_ends_before_its_cancelled_caller():
    """Its thread is busy for so long: who counts running calls must not count it as free."""

    async def scenario():
        compute, begun, goes_on, ended = ComputeThreads(1), threading.Event(), threading.Event(), threading.Event()

        def work():
            begun.set()
            goes_on.wait(20)
            ended.set()

        async def call():
            try:
                await compute.run(work)
            finally:
                assert ended.is_set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not begun.is_set():
                await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
            goes_on.set()
        assert ended.is_set()

    anyio.run(scenario)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted as Linux shows them")
def test_what_is_computed_aside_leaves_no_helpers_behind():
    done = subprocess.run([sys.executable, "-c", TEAMS], capture_output=True, text=True, check=True)
    before, during, after = map(int, done.stdout.split())
    assert during >= before + 4
    assert after == before


def test_what_fails_aside_fails_here():
    assert aside(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0)


def test_what_is_logged_there_belongs_to_the_request():
    async def scenario():
        current_request.set("0123456789abcdef")
        return await ComputeThreads(1).run(current_request.get)

    assert anyio.run(scenario) == "0123456789abcdef"
