"""The processes that train together: one, or several started by ``torchrun``."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deepgrow3d_app.errors import DeepGrow3DError, TrainingError
from deepgrow3d_app.model.engine import best_device

TOLD_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
STARTING = "Start several processes by torchrun, which sets all of this; for one alone, unset WORLD_SIZE."


class ToldByTheFirst(TrainingError):
    """What all processes refuse at once, in all but the first: that one tells it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number.
        count: how many there are.
        device: where it computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is the one that logs and saves."""
        return self.rank == 0

    def slots(self, batch_size: int, turn: int = 0) -> range:
        """The slots of the batch that this process works on; those of other turns are others.

        Raises:
            TrainingError: the batch cannot be shared out evenly.
        """
        if batch_size % self.count:
            raise TrainingError(
                f"A batch of {batch_size} patches cannot be shared evenly by {self.count} processes. "
                f"Choose a multiple of {self.count}."
            )
        share = batch_size // self.count
        first = turn * batch_size + self.rank * share
        return range(first, first + share)

    def parallel(self, network: nn.Module) -> nn.Module:
        """``network`` as it computes the same gradient in all processes: the mean over the whole batch."""
        return network if self.count == 1 else DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(value)
            value /= self.count
        return value

    def first(self, value: float) -> float:
        """``value`` as the first process has it: all of them then do the same with it."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    def agree(self, number: int) -> bool:
        """Whether ``number`` is the same in all processes."""
        if self.count == 1:
            return True
        numbers = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.count)]
        torch.distributed.all_gather(numbers, torch.tensor([number], device=self.device))
        return len({int(other) for other in numbers}) == 1

    def gathered(self, part: list[dict[str, object]]) -> list[dict[str, object]]:
        """The lists of all processes, one after the other."""
        if self.count == 1:
            return part
        parts: list[list[dict[str, object]]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(parts, part)
        return [item for each in parts for item in each]

    def wait(self) -> None:
        """Until every process has come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def refusal(self, reason: str) -> TrainingError:
        """What all processes raise at once, for the same ``reason``."""
        return TrainingError(reason) if self.is_first else ToldByTheFirst(reason)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What one process refuses in the block, all refuse: none goes on, or waits, for one that has left.

        Raises:
            DeepGrow3DError: the first process's own, else that of another one; ``ToldByTheFirst`` in all others.
            OSError: of the first process.
        """
        refusal: DeepGrow3DError | OSError | None = None
        try:
            yield
        except (DeepGrow3DError, OSError) as error:
            refusal = error
        reasons = [item["reason"] for item in self.gathered([] if refusal is None else [{"reason": str(refusal)}])]
        if refusal is not None and self.is_first:
            raise refusal
        if reasons:
            raise self.refusal(str(reasons[0])) from refusal


def alone() -> Ranks:
    """This process as the only one, whatever its surroundings say of others."""
    torch.backends.cudnn.benchmark = True  # all steps are of one shape
    return Ranks(0, 1, best_device())


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """This process as ``torchrun`` started it, or alone: NCCL between GPUs, gloo between CPUs.

    When one process dies, the others fail at their next step, and ``torchrun`` ends them all.

    Raises:
        TrainingError: more processes on this machine than it has GPUs, or it is not said which of several this one is.
    """
    count = _count_of_processes()
    ranks = alone()
    if count == 1:
        yield ranks
        return
    device = ranks.device
    if device.type == "cuda":
        _check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count())
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # The others wait while the first one prepares cases or validates. Who dies is noticed by torchrun, not by this.
    patience = datetime.timedelta(days=1)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    yield Ranks(torch.distributed.get_rank(), count, device)
    # Not after an error: NCCL would wait here for the others, who wait for this process, and torchrun for its end.
    torch.distributed.destroy_process_group()


def _count_of_processes() -> int:
    """How many train together, by what ``torchrun`` says. Other starters, and clusters, at times say half of it."""
    given = os.environ.get("WORLD_SIZE", "1")
    if not (given.isdecimal() and int(given) > 0):
        raise TrainingError(f"WORLD_SIZE is '{given}', which is no number of processes. {STARTING}")
    missing = [name for name in TOLD_BY_TORCHRUN if not os.environ.get(name)]
    if int(given) > 1 and missing:
        raise TrainingError(
            f"WORLD_SIZE says that {given} processes train together, but not which of them this is: "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set. {STARTING}"
        )
    return int(given)


def _check_gpus(processes: int, gpus: int) -> None:
    """Refuse more processes than GPUs on this machine: NCCL gives none of them a GPU that another one has."""
    if processes > gpus:
        raise TrainingError(
            f"{processes} processes are to train on this machine, each on a GPU of its own, and it has {gpus}. "
            f"Start no more than that: --nproc-per-node {gpus}."
        )
