"""How good the network is meanwhile: the evaluation's perfect user works on cases that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.evaluation.metrics import Reference
from deepgrow3d_app.evaluation.protocol import annotate, perfect_user
from deepgrow3d_app.evaluation.results import MethodRecord
from deepgrow3d_app.model.checkpoint import load_weights
from deepgrow3d_app.model.engine import TorchEngine
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.predictor import Predictor
from deepgrow3d_app.training.cases import CaseGroup, Structure, TrainingCase
from deepgrow3d_app.training.plan import TrainingPlan
from deepgrow3d_app.training.trainer import REPORTED_CLICKS
from deepgrow3d_app.volume.volume import Mask, Volume


class Validation:
    """The validation cases of a run.

    Args:
        groups: their validation cases are used.
        plan: how many structures are clicked, and how often.
    """

    def __init__(self, groups: Sequence[CaseGroup], plan: TrainingPlan) -> None:
        self.plan = plan
        self.targets = spread_targets(groups, plan.recipe.validation_structures)
        self.clicks = [clicks for clicks in REPORTED_CLICKS if clicks <= plan.recipe.validation_clicks]

    def score(
        self, weights: dict[str, Tensor], is_stopped: Callable[[], bool] = lambda: False
    ) -> dict[int, float] | None:
        """Mean Dice of a network with ``weights``, on the stored grid, by number of clicks. Uses no randomness.

        ``None`` where ``is_stopped``, which is asked at every click, says so.
        """
        network = build_network(self.plan.spec)
        load_weights(network, weights)
        predictor = Predictor(self.plan.spec, TorchEngine(network))
        rows = [dice_of(predictor, case, structure, self.clicks, is_stopped) for case, structure in self.targets]
        if any(row is None for row in rows):
            return None
        return dict(zip(self.clicks, np.mean([row for row in rows if row], axis=0).tolist(), strict=True))


def dice_of(
    predictor: Predictor,
    case: TrainingCase,
    structure: Structure,
    clicks: Sequence[int],
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[float] | None:
    """The Dice that the perfect user gets for ``structure`` after each number of ``clicks``, on the stored grid.

    ``None`` where ``is_stopped``, which is asked at every click, says so.
    """
    if is_stopped():
        return None
    opened = case.open()
    reference = Reference(np.asarray(opened.labels == structure.value), opened.volume.spacing_mm)
    dice: list[float] = []
    for one, _ in annotate(_Network(predictor), opened.volume, reference, perfect_user(opened.volume), max(clicks)):
        if is_stopped():
            return None
        dice.append(one.dice)
    return [dice[count - 1] for count in clicks]


class _Network:
    """A network in training as a method that the protocol can ask."""

    record = MethodRecord("network in training", {})

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def segment(self, volume: Volume, clicks: Sequence[Click], previous: Mask | None) -> Mask:
        return self._predictor.predict(volume, clicks, previous, clicks[-1:]).mask


def spread_targets(groups: Sequence[CaseGroup], count: int) -> list[tuple[TrainingCase, Structure]]:
    """At most ``count`` structures, from as many groups and cases as there are; always the same ones."""
    lists = [
        [(case, structure) for case in group.validation for structure in case.structures]
        for group in groups
        if group.validation
    ]
    chosen: list[tuple[TrainingCase, Structure]] = []
    for place, targets in enumerate(lists):
        share = min(len(targets), (count - len(chosen)) // (len(lists) - place))
        chosen += [targets[round(at)] for at in np.linspace(0, len(targets) - 1, share)] if share > 0 else []
    return chosen
