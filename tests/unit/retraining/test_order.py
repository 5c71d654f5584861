import pytest
import torch

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.retraining.order import RetrainingOrder


def test_what_viewers_send_for_other_trainers_is_passed_over():
    order = RetrainingOrder.of(
        {"max_epochs": "3", "pretrained": True, "dataset": "SmartCacheDataset", "client_id": "x"}
    )
    assert order == RetrainingOrder(max_epochs=3)


@pytest.mark.parametrize(
    "given",
    [
        {"max_epochs": 0},
        {"max_epochs": "many"},
        {"learning_rate": -1},
        {"learning_rate": float("nan")},
        {"site_share": 2},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": 10**23},
    ],
)
def test_a_value_outside_its_bounds_is_named(given):
    (name,) = given
    with pytest.raises(InvalidRequest, match=name):
        RetrainingOrder.of(given)


def test_the_largest_seed_can_be_used():
    order = RetrainingOrder.of({"seed": 2**63 - 1})
    assert torch.Generator().manual_seed(order.plan(ModelSpec()).recipe.seed).initial_seed() == 2**63 - 1


def test_the_plan_validates_after_each_epoch_and_ends_with_the_last():
    spec = ModelSpec(channels=(4, 8, 8), patch_shape=(32, 32, 32))
    plan = RetrainingOrder(max_epochs=3, steps_per_epoch=7, site_share=0.5, seed=4).plan(spec)
    assert plan.spec == spec
    assert plan.budget.steps == 21
    assert (plan.recipe.validate_every, plan.recipe.first_share, plan.recipe.seed) == (7, 0.5, 4)
