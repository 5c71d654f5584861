"""What a click takes where the cores are rationed, with a thread for each core and with no more than the quota.

    python -m benchmarks.core_quota --cores 1

A control group with that quota, as a container has one, is made for the time this runs, which takes the rights to make
one. In it, processes of either kind click on the sample CT in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track
from rich.table import Table

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.cores import GROUPS, THREADS_VARIABLE, limit_threads, usable_cores

if TYPE_CHECKING:
    from deepgrow3d_app.click.click import Click
    from deepgrow3d_app.volume.volume import Mask

ROOT = Path(__file__).parents[1]
CASES = ROOT / "sample-data" / "reference" / "ct-trunk"
CHECKPOINT = ROOT / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"
STRUCTURE = "liver"
CLICKS = 10
ROUNDS = 3
PERIOD_US = 100_000
MEMBERS = "cgroup.procs"


@contextlib.contextmanager
def group_with_quota(cores: float) -> Iterator[Path]:
    """The folder of a new control group with a quota of ``cores``, until the block ends.

    Raises:
        InvalidRequest: none can be made here.
    """
    quota = round(cores * PERIOD_US)
    for top, limits in (
        (GROUPS / "cpu", {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{quota}"}),
        (GROUPS, {"cpu.max": f"{quota} {PERIOD_US}"}),
    ):
        group = top / f"deepgrow3d-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                for name, text in limits.items():
                    with (group / name).open("r+") as limit:  # which the kernel has put there, or this is no group
                        limit.write(text)
            except OSError:
                group.rmdir()
                continue
            break
    else:
        raise InvalidRequest("No control group with a quota can be made here. Run this as root, on Linux.")
    try:
        yield group
    finally:
        group.rmdir()


def click() -> None:
    """Print the seconds of one click a line."""
    limit_threads()  # before what counts cores is imported
    from deepgrow3d_app.cases.folders import find_cases
    from deepgrow3d_app.evaluation.network_method import NetworkMethod
    from deepgrow3d_app.evaluation.protocol import perfect_user
    from deepgrow3d_app.model.allocator import share_heaps

    share_heaps()  # as the server does
    method = NetworkMethod(CHECKPOINT)
    case = next(iter(find_cases(CASES))).load()
    truth = case.truth(STRUCTURE)
    user = perfect_user(case.volume)
    clicks: list[Click] = []
    mask: Mask | None = None
    while len(clicks) < CLICKS and (wanted := user(truth, mask, [one.index for one in clicks])) is not None:
        clicks.append(wanted)
        started = time.perf_counter()
        mask = method.segment(case.volume, clicks, mask)
        print(time.perf_counter() - started)


def seconds_in(group: Path, threads: int | None) -> list[float]:
    """Of the clicks of a process in ``group`` that is told how many threads to start, or finds out."""
    environment = {name: value for name, value in os.environ.items() if name != THREADS_VARIABLE}
    environment |= {} if threads is None else {THREADS_VARIABLE: str(threads)}
    joins = f"open({str(group / MEMBERS)!r}, 'w').write('0'); from benchmarks.core_quota import click; click()"
    run = subprocess.run(
        [sys.executable, "-c", joins], check=True, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    return [float(line) for line in run.stdout.splitlines()]


def main() -> None:
    """Print both sides, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=float, default=1.0, help="quota, in cores")
    cores = parser.parse_args().cores
    console = Console()
    beyond = usable_cores()  # of the new group
    kinds = {f"{beyond}, one for each core outside the group": beyond, "as many as the quota": None}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with group_with_quota(cores) as group:
        for _ in track(range(ROUNDS), "both in turns", console=console, transient=True):
            for kind, threads in kinds.items():
                seconds[kind] += seconds_in(group, threads)[1:]  # the first one reads the volume
    table = Table("threads", "a later click, median s", "slowest s", title=f"A quota of {cores} cores")
    for kind, each in seconds.items():
        table.add_row(kind, f"{statistics.median(each):.2f}", f"{max(each):.2f}")
    console.print(table)
    before, now = (statistics.median(each) for each in seconds.values())
    console.print(f"Ratio of the medians: {now / before:.2f}")


if __name__ == "__main__":
    main()
