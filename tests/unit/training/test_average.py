import pytest
import torch
from torch import nn

from deepgrow3d_app.training.average import WeightAverage


def network(weight):
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(weight)
    return module


def test_by_hand():
    """It keeps 1/10 of itself at the first update, 2/11 at the second, and then the decay of 0.2, not 3/12."""
    average = WeightAverage(network(0.0), decay=0.2)
    expected = 0.0
    for keep, weight in ((1 / 10, 1.0), (2 / 11, 3.0), (0.2, -2.0), (0.2, 5.0)):
        average.update(network(weight))
        expected = keep * expected + (1 - keep) * weight
        assert float(average.weights["weight"]) == pytest.approx(expected)
    assert average.updates == 4


def test_it_starts_as_a_copy_of_the_network():
    latest = network(2.0)
    average = WeightAverage(latest, decay=0.9)
    with torch.no_grad():
        latest.weight.fill_(7.0)
    assert float(average.weights["weight"]) == 2.0
    assert not average.weights["weight"].requires_grad


def test_of_weights_that_stay_it_is_these_weights():
    average = WeightAverage(network(4.0), decay=0.998)
    for _ in range(50):
        average.update(network(4.0))
    assert float(average.weights["weight"]) == pytest.approx(4.0)
