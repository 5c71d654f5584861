"""What is asked of a retraining: parsed once, where a request comes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.plan import Budget, Recipe, TrainingPlan


class RetrainingOrder(BaseModel):
    """How to train on from the served network. The names are those that viewers show and send.

    Attributes:
        max_epochs: after each, the network is validated on held-out cases of the site.
        steps_per_epoch: gradient steps.
        train_batch_size: patches a step.
        learning_rate: at its peak; it falls to 0 over all epochs.
        site_share: of the patches with real labels, how many are of the site; the others are replayed, so that other
            organs are not forgotten.
        seed: of all randomness; generators of random numbers take no larger one than 63 bits hold.
        force: whether the network is published whatever its scores are.
    """

    model_config = ConfigDict(frozen=True)

    max_epochs: int = Field(default=5, ge=1, le=1000)
    steps_per_epoch: int = Field(default=60, ge=1, le=100_000)
    train_batch_size: int = Field(default=2, ge=1, le=64)
    learning_rate: float = Field(default=1e-4, gt=0, le=0.1)
    site_share: float = Field(default=0.6, gt=0, le=1)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    force: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> RetrainingOrder:
        """The order in a request; what viewers send for trainers of other kinds is passed over.

        Raises:
            InvalidRequest: a value outside its bounds.
        """
        try:
            return cls(**{name: value for name, value in params.items() if name in cls.model_fields})
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidRequest(
                f"'{first['loc'][0]}' is {first['input']!r}, which training cannot use: {first['msg']}."
            ) from error

    def plan(self, spec: ModelSpec) -> TrainingPlan:
        """The training that this means for a network of ``spec``."""
        recipe = Recipe(
            batch_size=self.train_batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=20,
            synthetic_share=0.2,
            first_share=self.site_share,
            average_decay=0.99,
            report_every=5,
            validate_every=self.steps_per_epoch,
            validation_structures=12,
            save_every=20,
            seed=self.seed,
        )
        return TrainingPlan(spec, recipe, Budget(steps=self.max_epochs * self.steps_per_epoch))
