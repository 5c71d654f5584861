"""A trained network on disk: weights in safetensors, its specification and its origin in the header."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from deepgrow3d_app.errors import CheckpointError
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.atomic_file import replace_file

SPEC_KEY = "spec"
ORIGIN_KEY = "origin"
EARLIER_KEY = "earlier"
"""In an origin: the origins of earlier runs, a JSON list."""
STARTED_FROM_KEY = "started_from"
"""What the first checkpoints had in its place: the whole origin of the one before."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that rebuilds a trained network.

    Attributes:
        spec: what it was trained on and is to be fed with.
        weights: parameters by name, as :func:`weights_of` gives them.
        origin: how it came to be (data, steps, command), for people to read.
    """

    spec: ModelSpec
    weights: dict[str, Tensor]
    origin: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            CheckpointError: missing, damaged, or not one of ours; the message names file and remedy.
        """
        if not path.is_file():
            raise CheckpointError(
                f"There is no checkpoint at '{path}'. Restore the file (it is part of the repository), "
                "train one with `deepgrow3d train`, or name another with --checkpoint."
            )
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"'{path.name}' is damaged or not a safetensors file: {error}.") from error
        if SPEC_KEY not in header:
            raise CheckpointError(f"'{path.name}' holds no DeepGrow 3D specification: it was made by another program.")
        try:
            return cls(ModelSpec.from_json(header[SPEC_KEY]), weights, json.loads(header.get(ORIGIN_KEY, "{}")))
        except (CheckpointError, ValueError) as error:
            raise CheckpointError(f"'{path.name}' cannot be used: {error}") from error

    def save(self, path: Path) -> None:
        """Write atomically, floating-point weights in half precision: the old file or the new one, never a part."""
        path.parent.mkdir(parents=True, exist_ok=True)
        halves = {name: tensor.detach().cpu().half().contiguous() for name, tensor in self.weights.items()}
        header = {SPEC_KEY: self.spec.to_json(), ORIGIN_KEY: json.dumps(self.origin)}
        replace_file(path, io.BytesIO(save(halves, header)))

    def digest(self) -> str:
        """The same for the same weights and specification, whatever their file and origin."""
        content = hashlib.sha256(self.spec.to_json().encode())
        for name, tensor in sorted(self.weights.items()):
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return content.hexdigest()[:32]

    def network(self) -> nn.Module:
        """The network with these weights, float32 on the CPU.

        Raises:
            CheckpointError: the weights do not fit the specification, or are not finite.
        """
        network = build_network(self.spec)
        for name, tensor in self.weights.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"The checkpoint's weights '{name}' are not finite: it is damaged.")
        load_weights(network, self.weights)
        return network


def averaged(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """One network from several of the same training line: the mean of their weights.

    Networks that were trained on from one another lie in one basin of the loss, and their mean is better, and
    steadier, than each (Wortsman et al., "Model soups", ICML 2022). Of unrelated ones it is worth nothing.

    Raises:
        CheckpointError: fewer than two, or of different specifications or layouts.
    """
    if len(checkpoints) < 2:
        raise CheckpointError("There is nothing to average. Give at least two checkpoints.")
    first = checkpoints[0]
    for other in checkpoints:
        if other.spec != first.spec:
            raise CheckpointError("The checkpoints have different specifications. Average those of one training line.")
        load_weights(build_network(first.spec), other.weights)
    weights = {
        name: torch.stack([one.weights[name].float() for one in checkpoints]).mean(dim=0) for name in first.weights
    }
    return Checkpoint(first.spec, weights, _origin_of_all(checkpoints))


def joined(checkpoints: Sequence[Checkpoint], mirrored: bool = False) -> Checkpoint:
    """One network that answers with the mean of the answers of several, whichever ways they were trained.

    Args:
        checkpoints: two or more; with ``mirrored``, one is enough.
        mirrored: whether each of them sees the mirror image of a patch, too.

    Raises:
        CheckpointError: too few, of different specifications, or weights that do not fit theirs.
    """
    if len(checkpoints) < (1 if mirrored else 2):
        raise CheckpointError("There is nothing to join. Give at least two checkpoints.")
    first = checkpoints[0].spec
    if any(one.spec != first for one in checkpoints) or first.networks > 1:
        raise CheckpointError("Networks of one specification can be joined, each of them single. Give such ones.")
    for one in checkpoints:
        one.network()  # raises where its weights do not fit
    try:
        spec = dataclasses.replace(first, networks=len(checkpoints), mirrored=first.mirrored or mirrored)
    except ValueError as error:
        raise CheckpointError(f"These networks cannot be joined: {error}.") from error
    if len(checkpoints) == 1:
        return Checkpoint(spec, dict(checkpoints[0].weights), _origin_of_all(checkpoints))
    weights = {f"{n}.{name}": weight for n, one in enumerate(checkpoints) for name, weight in one.weights.items()}
    return Checkpoint(spec, weights, _origin_of_all(checkpoints))


def _origin_of_all(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    runs = [run for one in checkpoints for run in lineage(one.origin)]
    return {EARLIER_KEY: json.dumps([run for place, run in enumerate(runs) if run not in runs[:place]])}


def lineage(origin: dict[str, str]) -> list[dict[str, str]]:
    """The runs that led to a network, the earliest first and its own last, from its checkpoint's ``origin``."""
    own = {name: text for name, text in origin.items() if name not in (EARLIER_KEY, STARTED_FROM_KEY)}
    earlier: list[dict[str, str]] = json.loads(origin.get(EARLIER_KEY, "[]"))
    if STARTED_FROM_KEY in origin:
        earlier = lineage(json.loads(origin[STARTED_FROM_KEY]))
    return [*earlier, own] if own else earlier


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of ``network`` by name, each once.

    A state dictionary would hold those of MONAI's ``DynUNet`` twice, because it names its blocks twice.
    """
    return dict(network.named_parameters())


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give ``network`` the ``weights`` that :func:`weights_of` took from one like it.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape differs.
    """
    parameters = weights_of(network)
    for name in parameters.keys() ^ weights.keys():
        fault = "misses" if name in parameters else "has unknown"
        raise CheckpointError(f"The checkpoint's weights do not fit its specification: it {fault} '{name}'.")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise CheckpointError(
                f"The checkpoint's weights do not fit its specification: '{name}' has the shape "
                f"{tuple(weights[name].shape)} and should have {tuple(parameter.shape)}."
            )
        parameter.data.copy_(weights[name])
