"""The training loop: annotators at work on many patches at once, the network learning from each answer."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deepgrow3d_app.click.guidance import Point
from deepgrow3d_app.click.simulator import ClickSimulator
from deepgrow3d_app.errors import TrainingError
from deepgrow3d_app.model.checkpoint import Checkpoint, load_weights, weights_of
from deepgrow3d_app.model.engine import reduced_precision
from deepgrow3d_app.model.inputs import network_inputs
from deepgrow3d_app.model.network import build_network, on_device
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.training.loss import dice_cross_entropy
from deepgrow3d_app.training.patches import Patch, PatchSource

MAX_SKIPPED_STEPS = 20
REPORT_STEPS = 20
MAX_GRADIENT_NORM = 12.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        minutes: wall-clock budget; the learning rate falls to 0 towards its end.
        batch_size: patches per step, each at its own number of clicks.
        learning_rate: peak, after ``warmup_steps``.
        weight_decay: of AdamW.
        warmup_steps: over which the learning rate rises linearly.
        max_clicks: an annotator leaves a patch after 1 to this many clicks, at random.
        forget_probability: how often the previous mask is withheld, so that a cold start works.
        synthetic_share: patches with made-up targets.
        average_decay: of the moving average of the weights, which is what is saved.
        seed: of all randomness.
    """

    minutes: float = 60.0
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    max_clicks: int = 15
    forget_probability: float = 0.2
    synthetic_share: float = 0.35
    average_decay: float = 0.998
    seed: int = 0


@dataclass(slots=True)
class Annotation:
    """One patch under annotation: what has been clicked and what the network last answered."""

    patch: Patch
    clicks_left: int
    mask: Tensor
    foreground: list[Point] = field(default_factory=list)
    background: list[Point] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands; averages over the latest steps.

    Attributes:
        step: gradient steps done.
        elapsed_s, budget_s: wall-clock time used and allowed.
        loss: of the latest steps.
        dice: mean training Dice after 1, 3 and 5 clicks, those that there were.
    """

    step: int
    elapsed_s: float
    budget_s: float
    loss: float
    dice: dict[int, float]


class Trainer:
    """Trains one network.

    Every slot of the batch is an annotator at work on a patch of his own: he clicks where the
    network's last answer is wrong, the network answers and learns from that answer at once, and the
    answer becomes the previous mask of his next click. So a gradient is taken at every number of clicks,
    no forward pass is spent without one, and a batch mixes first clicks with late corrections.

    Args:
        spec: what is trained.
        recipe: how.
        patches: endless supply.
        device: where the network computes; annotators click on the CPU.
        weights: where to start from; random where ``None``.
    """

    def __init__(
        self,
        spec: ModelSpec,
        recipe: Recipe,
        patches: PatchSource,
        device: torch.device,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.spec = spec
        self.recipe = recipe
        self.patches = patches
        self.device = device
        self.generator = np.random.default_rng(recipe.seed)
        self.simulator = ClickSimulator(spec.spacing_mm, "sampled", self.generator)
        self.expert = ClickSimulator(spec.spacing_mm, "deepest")
        self.network = build_network(spec)
        if weights is not None:
            load_weights(self.network, weights)
        self.network = on_device(self.network, device)
        self.average = _averaged(self.network, recipe.average_decay)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.annotations = [self._new_annotation() for _ in range(recipe.batch_size)]
        self.step = 0
        self._skipped = 0
        self._losses: list[float] = []
        self._dice: dict[int, list[float]] = {1: [], 3: [], 5: []}

    def train(
        self, output: Path, origin: dict[str, str], report: Callable[[Progress], None], save_every_s: float = 300.0
    ) -> Path:
        """Train for the recipe's time; save ``output`` now and then, and at the end.

        Args:
            output: the checkpoint; a log of JSON lines is written beside it.
            origin: what the checkpoint says of itself; steps and recipe are added.
            report: told every ``REPORT_STEPS`` steps where training stands.
            save_every_s: seconds between two saves.

        Raises:
            TrainingError: the loss stays non-finite.
        """
        started = saved = time.monotonic()
        budget_s = self.recipe.minutes * 60
        log_file = output.with_suffix(".log.jsonl")
        output.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("a", encoding="utf-8") as log:
            while (elapsed_s := time.monotonic() - started) < budget_s:
                self._set_learning_rate(elapsed_s / budget_s)
                if math.isfinite(self.train_step()) and self.step % REPORT_STEPS == 0:
                    progress = self.progress(elapsed_s, budget_s)
                    report(progress)
                    log.write(json.dumps(asdict(progress)) + "\n")
                    log.flush()
                if time.monotonic() - saved > save_every_s:
                    self._save(output, origin)
                    saved = time.monotonic()
        self._save(output, origin)
        return output

    def train_step(self) -> float:
        """One click by every annotator, one answer each, one gradient step; returns the loss."""
        for annotation in self.annotations:
            self._click(annotation)
        inputs = torch.stack([self._inputs(annotation) for annotation in self.annotations])
        truth = torch.stack([annotation.patch.truth for annotation in self.annotations]).to(self.device)
        inputs = inputs.to(self.device, memory_format=torch.channels_last_3d)
        # Gradients underflow in float16; bfloat16 has the range of float32.
        dtype = torch.bfloat16 if reduced_precision(self.device) is torch.bfloat16 else None
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            logits = self.network(inputs)[:, 0]
        loss = dice_cross_entropy(logits, truth)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        # A finite loss is not enough: bfloat16 convolutions of oneDNN at times return weight gradients
        # with NaN for feature maps of 2 x 2 x 2 voxels, and one such step would spoil the weights for good.
        if not bool(torch.isfinite(loss + gradient)):
            self._skip_step()
            return float("nan")
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        self._skipped = 0
        self._remember(float(loss.detach()), (logits.detach() > 0).cpu())
        return self._losses[-1]

    def progress(self, elapsed_s: float, budget_s: float) -> Progress:
        """Averages over the latest 200 losses and 100 Dice values of each kind."""
        dice = {clicks: float(np.mean(values[-100:])) for clicks, values in self._dice.items() if values}
        return Progress(self.step, elapsed_s, budget_s, float(np.mean(self._losses[-200:])), dice)

    def _new_annotation(self) -> Annotation:
        patch = self.patches.draw()
        clicks = int(self.generator.integers(1, self.recipe.max_clicks + 1))
        return Annotation(patch, clicks, torch.zeros(self.spec.patch_shape, dtype=torch.bool))

    def _click(self, annotation: Annotation) -> None:
        """The next click where the mask is wrong; a mask without fault gets none."""
        taken = [(int(i), int(j), int(k)) for i, j, k in annotation.foreground + annotation.background]
        simulator = self.expert if self.generator.random() < 0.3 else self.simulator
        click = simulator.next_click(annotation.patch.truth.numpy(), annotation.mask.numpy(), taken)
        if click is not None:
            (annotation.foreground if click.is_positive else annotation.background).append(
                (float(click.index[0]), float(click.index[1]), float(click.index[2]))
            )

    def _inputs(self, annotation: Annotation) -> Tensor:
        previous = annotation.mask.float()
        if self.generator.random() < self.recipe.forget_probability:
            previous = torch.zeros_like(previous)
        return network_inputs(annotation.patch.image, annotation.foreground, annotation.background, previous, self.spec)

    def _remember(self, loss: float, masks: Tensor) -> None:
        """Keep what the annotators see next, and the statistics."""
        self._losses.append(loss)
        for slot, (annotation, mask) in enumerate(zip(self.annotations, masks, strict=True)):
            clicks = len(annotation.foreground) + len(annotation.background)
            if clicks in self._dice:
                truth = annotation.patch.truth
                self._dice[clicks].append(float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())))
            annotation.mask = mask
            annotation.clicks_left -= 1
            if annotation.clicks_left == 0:
                self.annotations[slot] = self._new_annotation()

    def _set_learning_rate(self, done: float) -> None:
        """Linear warm-up, then a cosine to 0 over the time budget."""
        warm = min(1.0, (self.step + 1) / self.recipe.warmup_steps)
        rate = self.recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _skip_step(self) -> None:
        self._skipped += 1
        self.annotations = [self._new_annotation() for _ in self.annotations]
        if self._skipped >= MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"The loss or its gradient was not finite in {self._skipped} steps in a row (step {self.step}). "
                "Lower the learning rate, or check the images for absurd values."
            )

    def _save(self, output: Path, origin: dict[str, str]) -> None:
        weights = weights_of(self.average.module)
        history = {"steps": str(self.step), "recipe": json.dumps(asdict(self.recipe))}
        Checkpoint(self.spec, weights, {**origin, **history}).save(output)


def _averaged(network: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """A moving average that follows quickly at first and slowly later."""

    def blend(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        keep = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return average + (1 - keep) * (current - average)

    return torch.optim.swa_utils.AveragedModel(network, avg_fn=blend)
