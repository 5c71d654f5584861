"""How many cores this process may use, and no more threads than that.

A container's or a service's share of the cores (``docker run --cpus``, a limit of Kubernetes, ``CPUQuota`` of systemd)
is a quota of Linux's control groups: all cores stay visible, and whoever computes on all of them has spent the share
before the end of each period, and then stands still until the next one. PyTorch and BLAS start a thread for each core
that is visible.

Serving, training and the command line ask, so this lies on a floor below them, and imports nothing that is slow.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""PyTorch, BLAS and the processes that this one starts go by it."""

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """How many cores this process may keep busy, at least 1: those it may run on, or its quota where that is less.

    Of a quota of 1.5 cores, one: two threads that wait for each other would wait for the end of the period.
    """
    visible = _visible_cores()
    quota = quota_in_cores()
    return visible if quota is None else max(1, min(visible, math.floor(quota)))


def limit_threads() -> None:
    """Let what is imported from now on start no more threads than there are cores to use.

    Nothing changes where no quota asks for it, or where ``OMP_NUM_THREADS`` says how many there are to be.
    """
    cores = usable_cores()
    if cores < _visible_cores():
        os.environ.setdefault(THREADS_VARIABLE, str(cores))


def quota_in_cores(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> float | None:
    """The least quota of the control groups that this process is in; ``None`` without any.

    Args:
        membership: the kernel's list of these groups: ``number:controllers:/path`` a line, see cgroups(7). In version 2
            there is one group, with neither a number nor controllers.
        groups: where the groups are mounted: version 2 at the top, version 1 in folders that are called ``cpu``, or by
            all controllers that are mounted together.
    """
    folders = list[Path]()
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for top in {groups / "cpu", groups / controllers} if controllers else {groups}:
            group = top / path.lstrip("/")
            # A container may be told its path on the host, while its own group is mounted as the top one.
            folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(top)]
    return min((quota for folder in folders if (quota := _quota(folder)) is not None), default=None)


def _quota(group: Path) -> float | None:
    """Of one group, in cores: version 2 writes ``max`` where there is none, version 1 a negative number."""
    version_1 = " ".join(_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    match (_text(group / "cpu.max") or version_1).split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            return int(quota) / int(period)
    return None


def _text(file: Path) -> str:
    """What ``file`` holds; nothing where there is none, as on other systems, or where it may not be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
