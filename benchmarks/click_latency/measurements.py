"""What is measured: an annotator alone, ``/info/`` while clicks run, many annotators at once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from benchmarks.click_latency.annotator import Annotator, Answer, send_clicks
from benchmarks.click_latency.server_process import ServerFailed, ServerProcess
from benchmarks.click_latency.studies import Study
from deepgrow3d_app.click.click import Click

POLL_EVERY_S = 0.02

Step = Callable[[str], None]
"""Told what was done, whenever something was."""


@dataclass(frozen=True, slots=True)
class Session:
    """One annotator, alone with a server that was started for it.

    Attributes:
        side: which server, with which network.
        study: the volume.
        device: what computed.
        start_s: from starting the process to its first answer.
        first_s, undo_s: the first click, on a volume that nobody has read before; the last click taken back.
        later_s: the clicks between.
        first_bytes, later_bytes: lengths of the answers.
        dice: after the last click.
        peak_bytes: resident memory of the server and its processes, at most.
    """

    side: str
    study: str
    device: str
    start_s: float
    first_s: float
    later_s: list[float]
    undo_s: float
    first_bytes: int
    later_bytes: list[int]
    dice: float
    peak_bytes: int

    def later_percentile_s(self, percent: float) -> float:
        """Of the later clicks."""
        return float(np.percentile(self.later_s, percent))


@dataclass(frozen=True, slots=True)
class InfoLatency:
    """How ``/info/`` was answered while ``clicks`` clicks ran or waited."""

    study: str
    clicks: int
    seconds: list[float]
    clicks_took_s: float


@dataclass(frozen=True, slots=True)
class Crowd:
    """Annotators who click at the same time, each on an image of his own.

    Attributes:
        annotators: how many.
        seconds: all clicks of all of them.
        busy: how often one was asked to come back later.
        errors: other refusals, and what was said.
        took_s: from the first click to the last answer.
        peak_bytes: of the server until now.
    """

    annotators: int
    seconds: list[float]
    busy: int
    errors: list[str]
    took_s: float
    peak_bytes: int

    def percentile_s(self, percent: float) -> float:
        """Of all clicks."""
        return float(np.percentile(self.seconds, percent))


@dataclass(slots=True)
class Figures:
    """All that was measured, and what could not be."""

    sessions: list[Session] = field(default_factory=list)
    info: InfoLatency | None = None
    crowds: list[Crowd] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def session(self, side: str, study: str) -> Session | None:
        """That of ``side`` on ``study``, where there is one."""
        return next((one for one in self.sessions if (one.side, one.study) == (side, study)), None)


def measure_session(
    server: ServerProcess, side: str, device: str, study: Study, click_count: int, extension: str, step: Step
) -> Session:
    """First click, ``click_count`` later ones, undo."""
    annotator = Annotator(server, study, next(iter(study.truths)), extension)
    first = annotator.click()
    step(f"first click {first.seconds:.2f} s")
    later_s: list[float] = []
    later_bytes: list[int] = []
    for number in range(click_count):
        answer = annotator.click()
        later_s.append(answer.seconds)
        later_bytes.append(answer.n_bytes)
        step(f"later click {number + 1}: {answer.seconds:.2f} s")
    undo = annotator.undo()
    step(f"undo {undo.seconds:.2f} s")
    return Session(
        side=side,
        study=study.name,
        device=device,
        start_s=server.start_s,
        first_s=first.seconds,
        later_s=later_s,
        undo_s=undo.seconds,
        first_bytes=first.n_bytes,
        later_bytes=later_bytes,
        dice=annotator.dice(),
        peak_bytes=server.peak_bytes,
    )


def measure_info(server: ServerProcess, study: Study, click_count: int, extension: str, step: Step) -> InfoLatency:
    """Ask for ``/info/`` again and again while ``click_count`` annotators wait for their first click."""
    structure, truth = next(iter(study.truths.items()))
    click = study.simulator.next_click(truth, np.zeros_like(truth))
    assert click is not None
    seconds: list[float] = []
    started = time.perf_counter()
    with ThreadPoolExecutor(click_count) as pool:
        clicks = [
            pool.submit(send_clicks, server, study.name, structure, uuid.uuid4().hex, [click], extension)
            for _ in range(click_count)
        ]
        while not all(future.done() for future in clicks):
            asked = time.perf_counter()
            server.info()
            seconds.append(time.perf_counter() - asked)
            time.sleep(POLL_EVERY_S)
        for future in clicks:
            future.result()
    step(f"/info/ {len(seconds)} times, {max(seconds):.3f} s at most")
    return InfoLatency(study.name, click_count, seconds, time.perf_counter() - started)


def record_clicks(
    server: ServerProcess, study: Study, click_count: int, extension: str, step: Step
) -> dict[str, list[Click]]:
    """What an annotator clicks on each structure: for annotators who then need no time to think."""
    recorded = {}
    for structure in study.truths:
        annotator = Annotator(server, study, structure, extension)
        for _ in range(click_count):
            annotator.click()
        recorded[structure] = annotator.clicks
        step(f"recorded {click_count} clicks on {structure}")
    return recorded


def measure_crowd(
    server: ServerProcess, images: Sequence[str], recorded: dict[str, list[Click]], extension: str, step: Step
) -> Crowd:
    """An annotator for each of ``images``, each of whom clicks again as soon as he has an answer."""
    structures = list(recorded)
    start_together = threading.Barrier(len(images))

    def annotate(number: int) -> tuple[list[Answer], str]:
        structure, client_id = structures[number % len(structures)], uuid.uuid4().hex
        clicks, answers = recorded[structure], []
        start_together.wait()
        try:
            for count in range(1, len(clicks) + 1):
                answers.append(  # noqa: PERF401 - those before an error count
                    send_clicks(server, images[number], structure, client_id, clicks[:count], extension)
                )
        except ServerFailed as error:
            return answers, str(error)
        return answers, ""

    started = time.perf_counter()
    with ThreadPoolExecutor(len(images)) as pool:
        futures: list[Future[tuple[list[Answer], str]]] = [pool.submit(annotate, n) for n in range(len(images))]
        results = [future.result() for future in futures]
    took_s = time.perf_counter() - started
    answers = [answer for given, _ in results for answer in given]
    errors = [error for _, error in results if error]
    step(f"{len(images)} annotators: {len(answers)} clicks in {took_s:.1f} s")
    return Crowd(
        len(images),
        [answer.seconds for answer in answers],
        sum(answer.busy for answer in answers),
        errors,
        took_s,
        server.peak_bytes,
    )
