import pytest
import torch

from deepgrow3d_app.errors import InvalidRequest, TrainingError
from deepgrow3d_app.training.ranks import Ranks, joined

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
