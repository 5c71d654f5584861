"""Weights of MONAI Label's own DeepGrow 3D network, made into one of our checkpoints.

How that network is used was read in MONAI Label 0.8.5 (``radiology/lib``: ``configs/deepgrow_3d.py``,
``infers/deepgrow.py``, ``trainers/deepgrow.py``) and MONAI 1.6 (``apps/deepgrow``: ``dataset.py``, ``transforms.py``):

- Training volumes are brought into RAS order, resampled to 1 mm, and their last axis is moved to the front
  (``np.moveaxis(volume, -1, 0)``); serving does the same with ``Transposed(indices=[2, 0, 1])``. So the network sees
  (k, i, j), and not (k, j, i), of our (i, j, k): its patch of 128 x 192 x 192 is our 192 x 192 x 128.
- Intensities become (HU - 208) / 388. Clicks are Gaussians of 2 patch voxels that reach from 0 to 1.

The axes of every kernel are permuted here, once, so that the imported network gives for a patch (i, j, k) the logits
that the original gives for the same patch as (k, i, j). What still differs is named in ``REMAINING_DIFFERENCES``.
"""

from __future__ import annotations

import dataclasses
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from deepgrow3d_app.errors import CheckpointError
from deepgrow3d_app.model.checkpoint import Checkpoint, weights_of
from deepgrow3d_app.model.network import build_network
from deepgrow3d_app.model.spec import CLASSIC_SPEC

IMPORTED_SPEC = dataclasses.replace(
    CLASSIC_SPEC,
    patch_shape=(192, 192, 128),
    spacing_mm=(1.0, 1.0, 1.0),
    # The original was trained on 1 mm, and on coarser voxels where a structure is longer than the patch.
    max_zoom=2.0,
    labels=("spleen", "right kidney", "left kidney", "liver", "stomach", "aorta", "inferior vena cava"),
)
"""What the imported network is fed with: the classic input, at 1 mm and the size that it was trained on."""

REMAINING_DIFFERENCES = (
    "The region: MONAI Label serves all slices, squeezed or stretched to 128, and 256 x 256 mm around the clicks at "
    "1.33 mm; here it is 192 x 192 x 128 mm at 1 mm, as in its training, and up to twice that where the mask touches "
    "the border.",
    "The orientation: MONAI Label serves the axes as they are stored; here they are in RAS order, as in its training.",
    "Resampling: linear, with a triangle where voxels become coarser, instead of linear and then area averages.",
    "Beyond the volume the region is filled with -1732 HU; MONAI Label stretches what there is.",
    "Clicks: the maximum of their Gaussians, placed between voxels; MONAI Label adds them up at whole voxels and "
    "divides by the maximum, so that clicks that lie close dim those that lie alone.",
    "Other modalities than CT: the volume's own range of values instead of (value - 208) / 388.",
    "The mask: logits are interpolated to the stored grid and obey the clicks; MONAI Label takes the nearest voxel.",
    "Weights are stored as halves (16 bits), like those of all our checkpoints.",
)
"""Where serving an imported network differs from MONAI Label's own, for people to read."""

_WRAPPER_PREFIX = "module."
_TO_OUR_AXES = (0, 1, 3, 4, 2)  # kernels (channels, channels, k, i, j) to (channels, channels, i, j, k)


def import_weights(path: Path, command: str) -> Checkpoint:
    """The checkpoint of the weights in ``path``, to be saved and served like any other.

    Args:
        path: what ``torch.save`` wrote: a state dictionary of MONAI's ``BasicUNet`` (3-D, 3 input channels, 1 output
            channel, features 32, 64, 128, 256, 512, 32), by itself or under the key ``model``. Names may begin with
            ``module.``, as ``DataParallel`` leaves them.
        command: what is written down as the checkpoint's origin, beside the file's name.

    Raises:
        CheckpointError: missing, not a file of torch, more than tensors, or other weights than these.
    """
    weights = _without_wrapper(_state_dict(path), path.name)
    parameters = weights_of(build_network(IMPORTED_SPEC))
    for name in (*parameters, *weights):  # the network's order, so that the first fault is the first one
        if name not in weights:
            raise _foreign(path.name, f"it misses '{name}'")
        if name not in parameters:
            raise _foreign(path.name, f"it has unknown '{name}'")
        found, expected = weights[name], parameters[name]
        if found.shape != expected.shape:
            raise _foreign(path.name, f"'{name}' has the shape {tuple(found.shape)}, not {tuple(expected.shape)}")
        if not found.is_floating_point():
            raise _foreign(path.name, f"'{name}' has the type {found.dtype}, and should be floating-point")
        # As halves, because a checkpoint stores them so: a value beyond 65504 would become infinite there.
        if not bool(torch.isfinite(found.half()).all()):
            raise CheckpointError(
                f"'{path.name}' cannot be imported: '{name}' has values that are not finite, or larger than halves "
                "can hold (65504). The file is damaged or its training diverged: get it anew."
            )
    ours = {name: weights[name].permute(_TO_OUR_AXES) if weights[name].ndim == 5 else weights[name] for name in weights}
    return Checkpoint(IMPORTED_SPEC, ours, {"command": command, "imported_from": path.name})


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in ``path`` by name, on the CPU; nothing in the file is run."""
    if not path.is_file():
        raise CheckpointError(f"There is no file '{path}'. Name the .pt file with the weights to import.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle raise whatever they happen to spell
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise CheckpointError(
                f"'{path.name}' holds pickled objects besides tensors; they could run any code, and are not loaded. "
                "Where it comes from, write the state dictionary alone: torch.save(network.state_dict(), ...)."
            ) from error
        raise CheckpointError(
            f"'{path.name}' is damaged, or not a file that torch.save wrote (a TorchScript archive is none). "
            "Name a .pt file with a state dictionary."
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise _foreign(path.name, "it holds no state dictionary (names and tensors), alone or under the key 'model'")
    return state


def _without_wrapper(weights: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    """``weights`` by their names in the network itself."""
    if weights and all(name.startswith(_WRAPPER_PREFIX) for name in weights):
        return {name.removeprefix(_WRAPPER_PREFIX): tensor for name, tensor in weights.items()}
    if not weights:
        raise _foreign(file, "it holds no weights at all")
    return weights


def _foreign(file: str, fault: str) -> CheckpointError:
    return CheckpointError(
        f"'{file}' cannot be imported: {fault}. Only weights of MONAI Label's radiology deepgrow_3d network fit: "
        "BasicUNet, 3-D, 3 input channels, 1 output channel, features 32, 64, 128, 256, 512, 32."
    )
