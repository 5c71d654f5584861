import threading
import time
from functools import partial

import anyio
import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import Busy, Cancelled, Superseded
from deepgrow3d_app.serving.click_queue import ClickQueue, ClickSet

A, B, C = Click((0, 0, 0)), Click((1, 1, 1)), Click((2, 2, 2), is_positive=False)


def clicks(*those, annotator="anna", label="liver"):
    return ClickSet((annotator, label), frozenset(those))


async def is_there():
    return False


async def is_gone():
    return True


def with_deadline(scenario, *arguments):
    async def bounded():
        with anyio.fail_after(20):
            await scenario(*arguments)

    anyio.run(bounded)


class Line:
    """A queue of one thread, which is held until ``release``; keeps what came of each call by its name."""

    def __init__(self, max_waiting=10):
        self.queue = ClickQueue(1, max_waiting)
        self.held = threading.Event()
        self.order = []
        self.outcomes = {}

    async def call(self, name, request, gone=is_there):
        def compute():
            self.held.wait(20)
            self.order.append(name)
            return name

        try:
            self.outcomes[name] = await self.queue.run(compute, request, gone)
        except (Busy, Cancelled, Superseded) as error:
            self.outcomes[name] = error


async def start(tasks, line, *calls):
    """Start calls one after the other, each once the one before waits."""
    for call in calls:
        tasks.start_soon(line.call, *call)
        await anyio.sleep(0.02)


def test_a_free_thread_is_had_at_once():
    async def scenario():
        queue = ClickQueue(1, 0)
        turn = await queue.run(threading.get_ident, clicks(A), is_there)
        assert turn.result != threading.get_ident()
        assert turn.position == 0
        with pytest.raises(ZeroDivisionError):
            await queue.run(lambda: 1 // 0, clicks(A), is_there)
        assert (await queue.run(lambda: 7, clicks(A), is_there)).result == 7
        assert (queue.running, queue.waiting) == (0, 0)

    with_deadline(scenario)


def test_first_come_first_served_and_each_knows_its_place():
    async def scenario():
        line = Line()
        async with anyio.create_task_group() as tasks:
            await start(tasks, line, *[(name, clicks(A, annotator=name)) for name in ("anna", "bert", "carl", "dora")])
            assert (line.queue.running, line.queue.waiting) == (1, 3)
            line.held.set()
        assert line.order == ["anna", "bert", "carl", "dora"]
        assert [line.outcomes[name].position for name in line.order] == [0, 1, 2, 3]
        assert line.outcomes["dora"].waited_s > line.outcomes["anna"].waited_s

    with_deadline(scenario)


def test_the_newest_of_an_annotators_clicks_takes_the_place_of_those_that_wait():
    async def scenario():
        line = Line()
        async with anyio.create_task_group() as tasks:
            await start(
                tasks,
                line,
                ("other", clicks(A, annotator="bert")),
                ("one", clicks(A)),
                ("two", clicks(A, B)),
                ("other label", clicks(A, label="spleen")),
                ("three", clicks(A, B, C)),
                ("undone", clicks(A, B)),
            )
            line.held.set()
        assert line.order == ["other", "other label", "undone"]
        assert [type(line.outcomes[name]) for name in ("one", "two", "three")] == [Superseded] * 3
        assert line.outcomes["undone"].position == 2

    with_deadline(scenario)


def test_other_clicks_of_the_same_annotator_are_left_alone():
    """A script may ask about two structures that have no name."""

    async def scenario():
        line = Line()
        async with anyio.create_task_group() as tasks:
            await start(tasks, line, ("x", clicks(A, annotator="bert")), ("y", clicks(A)), ("z", clicks(B)))
            line.held.set()
        assert line.order == ["x", "y", "z"]

    with_deadline(scenario)


def test_what_runs_is_not_given_up():
    async def scenario():
        line = Line()
        async with anyio.create_task_group() as tasks:
            await start(tasks, line, ("one", clicks(A)), ("two", clicks(A, B)))
            line.held.set()
        assert line.order == ["one", "two"]

    with_deadline(scenario)


def test_a_full_queue_says_when_to_come_back():
    async def scenario():
        line = Line(max_waiting=1)
        async with anyio.create_task_group() as tasks:
            await start(tasks, line, *[(name, clicks(A, annotator=name)) for name in ("anna", "bert", "carl")])
            assert isinstance(line.outcomes["carl"], Busy)
            assert line.outcomes["carl"].retry_after_s >= 1
            line.held.set()
        assert line.order == ["anna", "bert"]

    with_deadline(scenario)


@pytest.mark.parametrize(("max_waiting", "is_full"), [(0, False), (1, True), (2, False)])
def test_a_queue_is_full_by_those_that_wait_and_not_by_those_that_run(max_waiting, is_full):
    async def scenario():
        line = Line(max_waiting)
        async with anyio.create_task_group() as tasks:
            await start(tasks, line, *[(name, clicks(A, annotator=name)) for name in ("anna", "bert")])
            assert line.queue.is_full is is_full
            line.held.set()
        assert isinstance(line.outcomes["bert"], Busy) is (max_waiting == 0)
        assert not line.queue.is_full

    with_deadline(scenario)


def test_a_newer_click_finds_room_in_a_full_queue_where_its_own_older_one_waits():
    async def scenario():
        line = Line(max_waiting=1)
        async with anyio.create_task_group() as tasks:
            await start(
                tasks,
                line,
                ("anna", clicks(A)),
                ("one", clicks(A, annotator="bert")),
                ("two", clicks(A, B, annotator="bert")),
            )
            line.held.set()
        assert line.order == ["anna", "two"]

    with_deadline(scenario)


def test_a_client_that_left_is_not_computed_for():
    async def scenario():
        line = Line()
        async with anyio.create_task_group() as tasks:
            await start(
                tasks,
                line,
                ("anna", clicks(A)),
                ("gone", clicks(A, annotator="bert"), is_gone),
                ("carl", clicks(A, annotator="carl")),
            )
            while "gone" not in line.outcomes:
                await anyio.sleep(0.01)
            line.held.set()
        assert isinstance(line.outcomes["gone"], Cancelled)
        assert line.order == ["anna", "carl"]

    with_deadline(scenario)


def test_a_cancelled_call_gives_its_place_to_the_next():
    async def scenario():
        line = Line()
        async with anyio.create_task_group() as tasks:
            await start(tasks, line, ("anna", clicks(A)))
            async with anyio.create_task_group() as cancelled:
                await start(cancelled, line, ("bert", clicks(A, annotator="bert")))
                cancelled.cancel_scope.cancel()
            await start(tasks, line, ("carl", clicks(A, annotator="carl")))
            line.held.set()
        assert line.order == ["anna", "carl"]
        assert (line.queue.running, line.queue.waiting) == (0, 0)

    with_deadline(scenario)


def test_several_threads_work_at_once():
    async def scenario():
        queue = ClickQueue(3, 10)
        together = threading.Barrier(3, timeout=20)
        async with anyio.create_task_group() as tasks:
            for name in ("anna", "bert", "carl"):
                tasks.start_soon(queue.run, together.wait, clicks(A, annotator=name), is_there)

    with_deadline(scenario)


def test_annotators_in_a_hurry_are_served_in_turn():
    """Each asks again as soon as it is answered: nobody may wait for more than the others' one click."""
    served = []

    def serve(name):
        served.append(name)
        time.sleep(0.002)

    async def annotate(queue, name):
        for number in range(5):
            request = clicks(Click((number, 0, 0)), annotator=name)
            await queue.run(partial(serve, name), request, is_there)

    async def scenario():
        queue = ClickQueue(1, 10)
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(annotate, queue, name)
        for begin in range(0, 20, 4):
            assert sorted(served[begin : begin + 4]) == list("abcd")

    with_deadline(scenario)
