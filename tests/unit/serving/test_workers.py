import threading

import anyio
import pytest

from deepgrow3d_app.errors import Busy
from deepgrow3d_app.serving.workers import Workers


def test_work_is_done_elsewhere_and_its_errors_come_back():
    async def scenario():
        workers = Workers(threads=1, max_waiting=0)
        assert await workers.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await workers.run(divmod, 1, 0)

    anyio.run(scenario)


def test_one_works_one_waits_and_the_third_is_told_so():
    release = threading.Event()

    async def scenario():
        workers = Workers(threads=1, max_waiting=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(workers.run, release.wait)
            tasks.start_soon(workers.run, release.wait)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Busy, match="1 requests wait already, the limit is 1"):
                await workers.run(release.wait)
            release.set()
        assert await workers.run(abs, -7) == 7

    with_deadline(scenario)


def with_deadline(scenario):
    async def bounded():
        with anyio.fail_after(20):
            await scenario()

    anyio.run(bounded)
