"""Training on without forgetting: the answers of an earlier network are kept on all but new cases."""

import dataclasses

import torch

from deepgrow3d_app.model.checkpoint import weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.training.cases import CasePool, load_group
from deepgrow3d_app.training.patches import PatchSource
from deepgrow3d_app.training.ranks import Ranks
from deepgrow3d_app.training.trainer import Trainer

ALONE = Ranks(0, 1, torch.device("cpu"))


def trained(plan, groups, share, earlier):
    plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, first_share=share, batches_in_turn=1))
    torch.manual_seed(0)
    start = {name: weight.detach().clone() for name, weight in weights_of(build_network(plan.spec)).items()}
    trainer = Trainer(plan, PatchSource(CasePool(groups, share), plan), ALONE, start, start if earlier else None)
    return [trainer.train_step() for _ in range(2)]


def two_groups(many_cases, spec, tmp_path):
    return [load_group(many_cases / name, spec, 0, tmp_path / "cache" / name) for name in "ab"]


def test_where_all_is_old_a_network_has_nothing_to_learn(many_cases, tiny_plan, tmp_path):
    groups = two_groups(many_cases, tiny_plan.spec, tmp_path)
    losses = trained(tiny_plan, groups, 1e-9, earlier=True)
    assert abs(losses[0]) < 1e-6
    learnt = trained(tiny_plan, groups, 1e-9, earlier=False)
    assert learnt[0] > 0.5


def test_a_mirrored_network_is_kept_as_it_answers_in_training(many_cases, tiny_plan, tmp_path):
    """Without mirror images: its mean with them is another answer, and would be learnt."""
    plan = dataclasses.replace(tiny_plan, spec=dataclasses.replace(tiny_plan.spec, mirrored=True))
    assert abs(trained(plan, two_groups(many_cases, plan.spec, tmp_path), 1e-9, earlier=True)[0]) < 1e-6


def test_labels_of_new_cases_are_learnt_from_as_ever(many_cases, tiny_plan, tmp_path):
    groups = two_groups(many_cases, tiny_plan.spec, tmp_path)
    assert trained(tiny_plan, groups, 1.0, earlier=True) == trained(tiny_plan, groups, 1.0, earlier=False)
