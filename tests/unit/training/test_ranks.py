import errno
import os

import pytest
import torch

from deepgrow3d_app.errors import InvalidRequest, TrainingError
from deepgrow3d_app.training import ranks as ranks_module
from deepgrow3d_app.training.ranks import Ranks, ToldByTheFirst, alone, joined

CPU = torch.device("cpu")


def test_slots_are_shared_out_in_order_and_all_of_them():
    assert [list(Ranks(rank, 3, CPU).slots(6)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert list(Ranks(0, 1, CPU).slots(5)) == [0, 1, 2, 3, 4]
    assert [list(Ranks(rank, 2, CPU).slots(4, turn=3)) for rank in range(2)] == [[12, 13], [14, 15]]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(TrainingError, match=r"A batch of 3 patches .* by 2 processes. Choose a multiple of 2"):
        Ranks(0, 2, CPU).slots(3)


def test_a_process_alone_is_the_first_and_has_nobody_to_ask(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert (ranks.rank, ranks.count, ranks.is_first) == (0, 1, True)
        network = torch.nn.Linear(1, 1)
        assert ranks.parallel(network) is network
        assert float(ranks.mean(torch.tensor(3.0))) == 3.0
        assert ranks.first(0.25) == 0.25
        assert ranks.agree(7)
        assert ranks.gathered([{"slot": 0}]) == [{"slot": 0}]
        ranks.wait()
        with pytest.raises(InvalidRequest, match="no"), ranks.together():
            raise InvalidRequest("no")


@pytest.fixture
def second_of_two(monkeypatch):
    """``second_of_two(reason)``: the second process, and what the first one refuses."""

    def make(reason=None):
        others = [] if reason is None else [{"reason": reason}]
        monkeypatch.setattr(Ranks, "gathered", lambda self, part: others + part)
        return Ranks(1, 2, CPU)

    return make


def test_what_is_refused_together_is_told_by_the_first_process_alone(second_of_two):
    with pytest.raises(ToldByTheFirst, match="no cases"), second_of_two("no cases").together():
        pass
    with pytest.raises(ToldByTheFirst, match="my own"), second_of_two().together():
        raise InvalidRequest("my own")
    second_of_two("the disk of the other is full")
    with pytest.raises(TrainingError, match="of the other") as caught, Ranks(0, 2, CPU).together():
        pass
    assert not isinstance(caught.value, ToldByTheFirst)


def test_a_disk_that_one_process_cannot_write_to_ends_all(second_of_two):
    with pytest.raises(ToldByTheFirst, match="No space left"), second_of_two().together():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"), Ranks(0, 1, CPU).together():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def process_group(monkeypatch):
    """What becomes of the process group of two processes; nothing is connected."""
    calls: list[str] = []
    for name, value in (
        ("WORLD_SIZE", "2"),
        ("RANK", "1"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "::1"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, name=name, **__: calls.append(name))
    return calls


def test_after_an_error_nobody_waits_for_the_others_to_part(process_group):
    """NCCL would: and the others wait for this process."""
    with joined() as ranks:
        assert (ranks.rank, ranks.count) == (1, 2)
    assert process_group == ["init_process_group", "destroy_process_group"]
    process_group.clear()
    with pytest.raises(TrainingError, match="no"), joined():
        raise TrainingError("no")
    assert process_group == ["init_process_group"]


def test_more_processes_than_gpus_are_refused(process_group, monkeypatch):
    monkeypatch.setattr(ranks_module, "best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match=r"2 processes .* it has 1\. .*--nproc-per-node 1"), joined():
        pass
    assert process_group == []


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two', which is no number of processes"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0', which is no number"),
        (
            "RANK",
            "",
            "2 processes train together, but not which of them this is: RANK is not set. Start .* by torchrun",
        ),
    ],
)
def test_half_of_what_torchrun_says_is_refused(process_group, monkeypatch, name, value, fault):
    monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=fault), joined():
        pass
    assert process_group == []


def test_a_server_trains_alone_whatever_its_surroundings_say(process_group):
    ranks = alone()
    assert (ranks.rank, ranks.count) == (0, 1)
    assert process_group == []
