import dataclasses
import json

import pytest

from deepgrow3d_app.click.batched import PolicyMix
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.plan import (
    DEFAULT_PLAN,
    SEED_PLAN,
    Budget,
    Recipe,
    TrainingPlan,
    first_difference,
    read_plan,
)


@pytest.fixture
def read(tmp_path):
    """``read(content)``: the plan of a file that holds it, as text or as what is written as JSON."""

    def read(content):
        file = tmp_path / "mine.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_plan(str(file))

    return read


def test_plans_are_read_by_name():
    assert read_plan("default") is DEFAULT_PLAN
    assert read_plan("seed") is SEED_PLAN


def test_the_seed_plan_is_the_classic_recipe():
    spec, recipe = SEED_PLAN.spec, SEED_PLAN.recipe
    assert spec.network == "basic_unet"
    assert spec.patch_shape == (128, 128, 128)
    assert spec.spacing_mm == (1.0, 1.0, 3.0)
    assert spec.input_channels == 3
    assert (spec.min_zoom, spec.max_zoom) == (1.0, 1.0)
    assert recipe.max_clicks == recipe.validation_clicks == 15
    assert recipe.synthetic_share == 0
    assert not recipe.is_augmented


@pytest.mark.parametrize(
    "plan",
    [
        DEFAULT_PLAN,
        SEED_PLAN,
        TrainingPlan(
            ModelSpec(channels=(4, 8), walker_sigmas=(0.1,), labels=("a", "b")),
            Recipe(batch_size=6, learning_rate=3e-4, policies=PolicyMix(1.0, 0.0, 0.0, 0.0, 2.0), seed=11),
        ),
    ],
    ids=["default", "seed", "another"],
)
def test_a_written_plan_is_read_as_it_was(read, plan):
    assert read(plan.to_json()) == plan


def test_what_a_file_leaves_out_is_as_in_the_default_plan(read):
    assert read({}) == DEFAULT_PLAN
    plan = read({"spec": {"sigma_mm": 3}, "recipe": {"batch_size": 8, "policies": {"deepest": 0.5}}})
    assert plan.spec == dataclasses.replace(DEFAULT_PLAN.spec, sigma_mm=3.0)
    assert plan.recipe == Recipe(batch_size=8, policies=PolicyMix(deepest=0.5))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"recipe": {"batch_sise": 2}}, "recipe has no 'batch_sise'"),
        ({"spec": {"sigma": 2}}, "spec has no 'sigma'"),
        ({"recipe": {"policies": {"deepst": 1}}}, "policies has no 'deepst'"),
        ({"network": "basic_unet"}, "not an object of 'spec', 'recipe' and 'budget'"),
        ([], "not an object of 'spec', 'recipe' and 'budget'"),
        ({"spec": 5}, "spec is not an object"),
        ({"recipe": None}, "recipe is not an object"),
        ({"recipe": {"policies": [1, 2]}}, "policies is not an object"),
        ({"recipe": {"batch_size": "two"}}, "recipe.batch_size: .*integer"),
        ({"spec": {"network": "resnet"}}, "spec.network: .*compact_unet"),
        ({"spec": {"patch_shape": [32, 32]}}, "spec.patch_shape.2: Field required"),
        ('{"spec": ', "Expecting value"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(read, content, told):
    with pytest.raises(InvalidRequest, match=f"^'mine.json' is no training plan: .*{told}"):
        read(content)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("batch_size", 0, "at least 1"),
        ("max_clicks", -1, "at least 1"),
        ("warmup_steps", 0, "at least 1"),
        ("save_every", 0, "at least 1"),
        ("validate_every", 0, "at least 1"),
        ("validation_clicks", 0, "at least 1"),
        ("forget_probability", 1.5, "from 0 to 1"),
        ("synthetic_share", -0.1, "from 0 to 1"),
        ("average_decay", 2.0, "from 0 to 1"),
        ("learning_rate", 0.0, "positive"),
    ],
)
def test_a_number_out_of_range_is_refused_in_code_and_in_a_file(read, name, value, remedy):
    told = f"The recipe's {name} is {value}. Choose .*{remedy}"
    with pytest.raises(InvalidRequest, match=told):
        dataclasses.replace(Recipe(), **{name: value})
    with pytest.raises(InvalidRequest, match=told):
        read({"recipe": {name: value}})


def test_a_missing_file_is_named_with_the_plans_that_there_are():
    with pytest.raises(InvalidRequest, match=r"no plan 'sed'. Choose default or seed, or name a JSON file"):
        read_plan("sed")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patch_shape": [90, 90, 90]}, "patch_shape is .* multiples of 16"),
        ({"spacing_mm": [2, 0, 2]}, "spacing_mm is .* positive edges"),
        ({"min_zoom": 0}, "min_zoom is 0"),
        ({"min_zoom": 2, "max_zoom": 1}, "min_zoom is 2"),
        ({"stretch": 0.9}, "stretch is 0.9"),
        ({"walker_sigmas": [0]}, "walker_sigmas is .* positive"),
    ],
)
def test_a_spec_that_no_network_can_have_is_refused_in_words(tmp_path, changes, told):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"spec": changes}))
    with pytest.raises(InvalidRequest, match=told):
        read_plan(str(file))


def test_a_budget_replaces_the_default_one(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text('{"budget": {"steps": 7}}')
    assert read_plan(str(file)).budget == Budget(steps=7, minutes=None)


def test_the_first_difference_of_two_plans_is_told():
    other = dataclasses.replace(DEFAULT_PLAN, recipe=dataclasses.replace(DEFAULT_PLAN.recipe, seed=3))
    assert first_difference(DEFAULT_PLAN, other) == "seed is 0 and not 3"
    assert first_difference(DEFAULT_PLAN, dataclasses.replace(DEFAULT_PLAN, budget=Budget(steps=1))) is None
    assert first_difference(DEFAULT_PLAN, SEED_PLAN) == "network is compact_unet and not basic_unet"
