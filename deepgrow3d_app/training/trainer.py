"""The training step: annotators click on many patches at once, the network learns from each answer."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepgrow3d_app.model.checkpoint import load_weights
from deepgrow3d_app.model.network import build_network, on_device
from deepgrow3d_app.model.precision import cpu_has_bfloat16, reduced_precision
from deepgrow3d_app.training.annotation import AnnotationBatch
from deepgrow3d_app.training.average import WeightAverage
from deepgrow3d_app.training.loss import departure, dice_cross_entropy
from deepgrow3d_app.training.patches import Patches
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.ranks import Ranks

MAX_SKIPPED_STEPS = 20
RECENT_LOSSES = 200
RECENT_DICE = 100
REPORTED_CLICKS = (1, 3, 5, 10, 15)


@dataclass(slots=True)
class Recent:
    """The latest losses, and the latest Dice values by number of clicks, of this process."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_LOSSES))
    dice: dict[int, deque[float]] = field(
        default_factory=lambda: {clicks: deque(maxlen=RECENT_DICE) for clicks in REPORTED_CLICKS}
    )

    def add(self, loss: float, dice: dict[int, list[float]]) -> None:
        """One step's."""
        self.losses.append(loss)
        for clicks in self.dice.keys() & dice.keys():
            self.dice[clicks].extend(dice[clicks])

    @property
    def mean_loss(self) -> float:
        """NaN before the first step."""
        return float(np.mean(self.losses)) if self.losses else float("nan")

    @property
    def mean_dice(self) -> dict[int, float]:
        """Of those numbers of clicks that there were."""
        return {clicks: float(np.mean(values)) for clicks, values in self.dice.items() if values}


class Trainer:
    """Trains one network.

    Every slot of the batch is an annotator at work on a patch of his own: he clicks where the
    network's last answer is wrong, the network answers and learns from that answer at once, and the
    answer becomes the previous mask of his next click. So a gradient is taken at every number of clicks,
    no forward pass is spent without one, and a batch mixes first clicks with late corrections. Several
    batches take turns, or one step after the other would learn from the same few patches.

    Several processes share the slots out among them. What they compute together is what one would compute
    alone with the whole batch, but for rounding.

    Args:
        plan: what is trained, and how.
        patches: endless supply.
        ranks: this process and the others.
        weights: where to start from; random, by the recipe's seed, where ``None``.
        earlier: weights of a network whose answers are kept, by ``recipe.kept_weight``, on all but new patches, whose
            labels are then not learnt from.

    Attributes:
        step: gradient steps done.
        in_bfloat16: whether convolutions are computed in bfloat16, else in float32; the same in all processes.
        skipped_in_all: steps that were not, because the loss or its gradient was not finite.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        patches: Patches,
        ranks: Ranks,
        weights: dict[str, Tensor] | None = None,
        earlier: dict[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(plan.recipe.seed)
        self.plan = plan
        self.ranks = ranks
        # Gradients underflow in float16; bfloat16 has the range of float32.
        self.in_bfloat16 = bool(ranks.first(reduced_precision(ranks.device) is torch.bfloat16))
        network = build_network(plan.spec)
        if weights is not None:
            load_weights(network, weights)
        self.network = on_device(network, ranks.device)
        self.earlier = None if earlier is None else _frozen(plan, earlier, ranks.device)
        self.parallel = ranks.parallel(self.network)
        self.average = WeightAverage(self.network, plan.recipe.average_decay)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=plan.recipe.learning_rate, weight_decay=plan.recipe.weight_decay
        )
        self.batches = [
            AnnotationBatch(patches, plan, ranks.slots(plan.recipe.batch_size, turn), ranks.device)
            for turn in range(plan.recipe.batches_in_turn)
        ]
        self.recent = Recent()
        self.step = 0
        self.skipped_in_all = 0
        self._skipped = 0

    def train_step(self, done: float = 0.0) -> float:
        """One click by every annotator, one answer each, one gradient step.

        Args:
            done: share of the budget that is used up, which sets the learning rate.

        Returns:
            The loss, the mean over all processes; NaN where the step was skipped because the loss or its
            gradient was not finite.

        Raises:
            TrainingError: that happened ``MAX_SKIPPED_STEPS`` times in a row.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(done)
        batch = self.batch
        batch.click()
        # The first layers round to bfloat16 anyhow; rounded here, the inputs are not copied along in float32.
        precision = torch.bfloat16 if self.in_bfloat16 else torch.float32
        inputs = batch.inputs().to(precision, memory_format=torch.channels_last_3d)
        with torch.autocast(self.ranks.device.type, dtype=torch.bfloat16, enabled=self.in_bfloat16):
            logits = self.parallel(inputs)[:, 0]
            before = self._answers_before(inputs, batch)
        losses = dice_cross_entropy(logits, batch.truths)
        if before is not None:
            losses = torch.where(batch.are_new, losses, self.plan.recipe.kept_weight * departure(logits, before))
        loss = losses.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.recipe.max_gradient_norm)
        mean_loss = self.ranks.mean(loss.detach().clone())
        # A finite loss is not enough: bfloat16 convolutions of oneDNN at times return weight gradients
        # with NaN for feature maps of 2 x 2 x 2 voxels, and one such step would spoil the weights for good.
        if not bool(torch.isfinite(mean_loss + gradient)):
            self._skip_step()
            return float("nan")
        self.optimizer.step()
        self.average.update(self.network)
        self.step += 1
        self._skipped = 0
        self.recent.add(float(mean_loss), batch.answer(logits.detach() > 0))
        return float(mean_loss)

    @property
    def batch(self) -> AnnotationBatch:
        """The annotators whose turn it is."""
        return self.batches[self.step % len(self.batches)]

    def learning_rate(self, done: float) -> float:
        """Linear warm-up, then a cosine to 0 at the end of the budget."""
        recipe = self.plan.recipe
        warm = min(1.0, (self.step + 1) / recipe.warmup_steps)
        return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`restore` needs to go on as if there had been no interruption."""
        return {
            "step": self.step,
            "in_bfloat16": self.in_bfloat16 if self.ranks.device.type == "cpu" else None,
            "skipped": self._skipped,
            "skipped_in_all": self.skipped_in_all,
            "network": self.network.state_dict(),
            "average": self.average.weights,
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "annotations": self.ranks.gathered([one for batch in self.batches for one in batch.state()]),
            "losses": list(self.recent.losses),
            "dice": {clicks: list(values) for clicks, values in self.recent.dice.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave; a batch may be shared by another number of processes."""
        kept = state.get("in_bfloat16")
        if kept is not None and self.ranks.device.type == "cpu":  # a second trial could turn out otherwise
            self.in_bfloat16 = bool(self.ranks.first(kept and cpu_has_bfloat16()))
        self.step, self._skipped, self.skipped_in_all = state["step"], state["skipped"], state["skipped_in_all"]
        self.network.load_state_dict(state["network"])
        for name, weight in self.average.weights.items():
            weight.copy_(state["average"][name])
        self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        for batch in self.batches:
            batch.restore(state["annotations"])
        self.recent = Recent()
        self.recent.losses.extend(state["losses"])
        for clicks, values in state["dice"].items():
            self.recent.dice[clicks].extend(values)

    @torch.no_grad()
    def _answers_before(self, inputs: Tensor, batch: AnnotationBatch) -> Tensor | None:
        """Logits (slots, i, j, k) of the earlier network; ``None`` where nothing is to be kept."""
        if self.earlier is None or bool(batch.are_new.all()):
            return None
        logits: Tensor = self.earlier(inputs)
        return logits[:, 0]

    def _skip_step(self) -> None:
        self._skipped += 1
        self.skipped_in_all += 1
        self.batch.leave()
        if self._skipped >= MAX_SKIPPED_STEPS:
            raise self.ranks.refusal(
                f"The loss or its gradient was not finite in {self._skipped} steps in a row (step {self.step}). "
                "Check the images for absurd values, or start another run from the saved network (--start-from) with a "
                "lower --learning-rate."
            )


def _frozen(plan: TrainingPlan, weights: dict[str, Tensor], device: torch.device) -> nn.Module:
    # As a network answers in training, without mirror images and by the same sums: equal weights give equal answers.
    network = build_network(plan.spec)
    load_weights(network, weights)
    return on_device(network.train().requires_grad_(False), device)
