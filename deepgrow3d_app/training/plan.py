"""What is trained and how: one frozen object, read once from a name or a file."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from deepgrow3d_app.click.batched import PolicyMix
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        batch_size: patches per step over all processes, each at its own number of clicks.
        batches_in_turn: so many batches of annotators take turns, so that one step after the other sees other patches.
        learning_rate: peak, after ``warmup_steps``; it falls along a cosine to 0 at the end of the budget.
        weight_decay: of AdamW.
        warmup_steps: over which the learning rate rises linearly.
        max_clicks: an annotator leaves a patch after 1 to this many clicks, at random.
        staying_share: of the annotators, how many make ``max_clicks`` clicks instead. With none, one in 120 clicks
            that are learnt from is the 15th of 15; with all of them, one in 15.
        policies: how annotators choose their clicks.
        forget_probability: how often the previous mask is withheld, so that a cold start works.
        synthetic_share: patches with made-up targets (pseudo-structures).
        first_share: how often the others are of the first folder; ``None``: as often as its structures count.
        kept_weight: where answers of an earlier network are kept, what a departure from them costs.
        is_augmented: whether patches are turned, bent, stretched, coarsened and changed in appearance.
        turned_share: of these, how many are mirrored at random. The others lie as patients do, and as the server will
            show them: left, front and top mean something.
        average_decay: of the moving average of the weights, which is what is saved.
        max_gradient_norm: longer gradients are shortened to this.
        report_every: steps between two lines of the log.
        validate_every: steps between two validations.
        validation_clicks: clicks by the perfect user on each structure in a validation.
        validation_structures: at most so many are clicked, spread over the validation cases.
        save_every: steps between two saves of the run's state.
        seed: of all randomness.
    """

    batch_size: int = 2
    batches_in_turn: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    max_clicks: int = 15
    staying_share: float = 0.0
    policies: PolicyMix = field(default_factory=PolicyMix)
    forget_probability: float = 0.2
    synthetic_share: float = 0.35
    first_share: float | None = None
    kept_weight: float = 12.0
    is_augmented: bool = True
    turned_share: float = 0.3
    average_decay: float = 0.998
    max_gradient_norm: float = 12.0
    report_every: int = 20
    validate_every: int = 1000
    validation_clicks: int = 5
    validation_structures: int = 12
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("batch_size", "batches_in_turn", "warmup_steps", "max_clicks", "save_every")
        for name in (*counts, "report_every", "validate_every", "validation_clicks", "validation_structures"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"The recipe's {name} is {getattr(self, name)}. Choose at least 1.")
        for name in ("staying_share", "forget_probability", "synthetic_share", "turned_share", "average_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidRequest(f"The recipe's {name} is {getattr(self, name)}. Choose a number from 0 to 1.")
        if self.first_share is not None and not 0 < self.first_share <= 1:
            raise InvalidRequest(f"The recipe's first_share is {self.first_share}. Choose a share, at most 1.")
        if not 0 <= self.seed < 1 << 63:
            raise InvalidRequest(f"The recipe's seed is {self.seed}. Choose a whole number from 0 to {(1 << 63) - 1}.")
        for name in ("learning_rate", "max_gradient_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidRequest(f"The recipe's {name} is {getattr(self, name)}. Choose a positive number.")
        for name in ("weight_decay", "kept_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidRequest(f"The recipe's {name} is {getattr(self, name)}. Choose 0 or a positive number.")


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run ends: at the first of its bounds.

    Attributes:
        steps: gradient steps.
        minutes: wall-clock time. The learning rate then follows the clock, so that no two runs are the same to
            the last digit; with steps alone they are.

    Raises:
        InvalidRequest: neither, or one that is not positive.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InvalidRequest("Nothing says when training ends. Give a number of steps, of minutes, or both.")
        for name in ("steps", "minutes"):
            if (bound := getattr(self, name)) is not None and not bound > 0:
                raise InvalidRequest(f"Training cannot end after {bound} {name}. Choose a positive number.")

    def done(self, step: int, elapsed_s: float) -> float:
        """The share that is used up; 1 or more at the end."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.minutes is None else elapsed_s / (60 * self.minutes)
        return max(by_steps, by_time)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A network's specification, the recipe to train it with, and when that ends."""

    spec: ModelSpec
    recipe: Recipe = field(default_factory=Recipe)
    budget: Budget = Budget(minutes=60.0)

    def to_json(self) -> str:
        """A JSON object, as :func:`read_plan` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)


DEFAULT_PLAN = TrainingPlan(ModelSpec(walker_sigmas=(0.0225, 0.05)))

SEED_PLAN = TrainingPlan(
    CLASSIC_SPEC,
    Recipe(
        batch_size=1,
        learning_rate=1e-4,
        policies=PolicyMix(deepest=0.0, middle=1.0, inside=0.0, border=0.0, displaced=0.0),
        synthetic_share=0.0,
        is_augmented=False,
        validation_clicks=15,
    ),
)
"""The classic recipe: 128^3 patches at 1x1x3 mm placed by label, up to 15 clicks in training, 15 in validation.

Clicks are drawn as in MONAI's ``AddRandomGuidanced``, likelier towards the middle of the errors. What differs on
purpose: there, 15 clicks are answered without a gradient and only the last answer is learnt from, so that a first
click is never optimised; here annotators make 1 to 15 clicks, and every answer is a training step. Optimizer (AdamW
with warm-up and cosine), loss (Dice and cross-entropy) and the average of the weights are those of the default plan.
"""

PLANS = {"default": DEFAULT_PLAN, "seed": SEED_PLAN}


def read_plan(name: str) -> TrainingPlan:
    """The plan called ``default`` or ``seed``, or the one in a JSON file.

    A file holds ``{"spec": {..}, "recipe": {..}, "budget": {..}}``; what it leaves out is as in the default plan.

    Args:
        name: of a plan or a file.

    Raises:
        InvalidRequest: no such plan or file, or one that is not understood.
    """
    if name in PLANS:
        return PLANS[name]
    file = Path(name)
    if not file.is_file():
        raise InvalidRequest(f"There is no plan '{name}'. Choose {' or '.join(PLANS)}, or name a JSON file.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _refuse_unknown_names(content)
        default = dataclasses.asdict(DEFAULT_PLAN)
        complete = {part: {**default[part], **content.get(part, {})} for part in ("spec", "recipe")}
        complete["budget"] = content.get("budget", default["budget"])
        plan: TrainingPlan = TypeAdapter(TrainingPlan).validate_python(complete)
    except (ValueError, OSError) as error:
        raise InvalidRequest(
            f"'{file.name}' is no training plan: {_fault(error)}. Start from the default one."
        ) from error
    return plan


def first_difference(plan: TrainingPlan, other: TrainingPlan) -> str | None:
    """What is trained or how, in words, where two plans differ in more than their budget."""
    for part in ("spec", "recipe"):
        for item in dataclasses.fields(getattr(plan, part)):
            values = [getattr(getattr(one, part), item.name) for one in (plan, other)]
            if values[0] != values[1]:
                return f"{item.name} is {values[0]} and not {values[1]}"
    return None


def _refuse_unknown_names(content: object) -> None:
    """A mistyped name would be passed over, and the default be trained instead."""
    known = {"spec": ModelSpec, "recipe": Recipe, "budget": Budget}
    if not isinstance(content, dict) or not content.keys() <= known.keys():
        raise ValueError("it is not an object of 'spec', 'recipe' and 'budget'")
    parts = [(part, known[part], values) for part, values in content.items()]
    recipe = content.get("recipe")
    if isinstance(recipe, dict) and "policies" in recipe:
        parts.append(("policies", PolicyMix, recipe["policies"]))
    for part, kind, values in parts:
        if not isinstance(values, dict):
            raise ValueError(f"{part} is not an object")
        names = {field.name for field in dataclasses.fields(kind)}
        if unknown := sorted(values.keys() - names):
            raise ValueError(f"{part} has no '{unknown[0]}'")


def _fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
