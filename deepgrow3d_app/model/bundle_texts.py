"""What a bundle says about its network: for programs (metadata.json) and for people (README.md)."""

from __future__ import annotations

import json
from typing import Any

import monai
import nibabel
import numpy as np
import torch

from deepgrow3d_app import __version__
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.spec import ModelSpec

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
INTENDED_USE = "Annotation of CT and MR volumes by a person who looks at every mask. Not for diagnostic use."


def metadata(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """The content of ``configs/metadata.json``, by MONAI's schema; our specification is under ``deepgrow3d``."""
    spec = checkpoint.spec
    channels = channel_descriptions(spec)
    patch = {
        "type": "image",
        "modality": "CT, MR",
        "spatial_shape": list(spec.patch_shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
    }
    return {
        "schema": SCHEMA_URL,
        "version": __version__,
        "changelog": {__version__: "exported by DeepGrow 3D"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": nibabel.__version__},
        "name": name,
        "task": "Click-driven segmentation of any structure in a CT or MR",
        "description": (
            "A network that turns clicks inside and outside of a structure into the logits of its mask, within a "
            f"patch of {_by(spec.patch_shape)} voxels of {_by(spec.spacing_mm)} mm."
        ),
        "authors": "DeepGrow 3D",
        "copyright": "See LICENSE; that of imported weights is their origin's",
        "data_source": "The checkpoint's origin, under deepgrow3d",
        "data_type": "nibabel",
        "image_classes": "; ".join(channels),
        "label_classes": "1 inside the structure, 0 outside",
        "pred_classes": "one channel of logits, positive inside the structure",
        "eval_metrics": {},
        "intended_use": INTENDED_USE,
        "references": [],
        "network_data_format": {
            "inputs": {
                "image": patch
                | {
                    "format": "magnitude",
                    "num_channels": spec.input_channels,
                    "channel_def": {str(number): text for number, text in enumerate(channels)},
                }
            },
            "outputs": {
                "pred": patch
                | {
                    "format": "segmentation",
                    "num_channels": 1,
                    "channel_def": {"0": "logit of the structure, positive inside"},
                }
            },
        },
        "deepgrow3d": {"spec": json.loads(spec.to_json()), "origin": checkpoint.origin},
    }


def channel_descriptions(spec: ModelSpec) -> list[str]:
    """What each input channel holds, in the order of ``model.inputs.network_inputs``."""
    low, high = spec.window_hu
    tails = "logarithmic" if spec.compress_tails else "linear"
    sigma = "/".join(f"{spec.sigma_mm / edge:g}" for edge in spec.spacing_mm)
    gaussian = f"Gaussians of sigma {spec.sigma_mm:g} mm at zoom 1 ({sigma} patch voxels), maximum 1, 0 without clicks"
    channels = [
        f"image; CT: {low:g} HU is -1 and {high:g} HU is +1, {tails} beyond; other: its 0.5 and 99.5 percentiles",
        f"foreground clicks: {gaussian}",
        f"background clicks: {gaussian}",
    ]
    if spec.previous_mask:
        channels.append("the mask before the latest click: 1 inside, 0 outside and at the first click")
    if spec.barrier_scale > 0:
        first, other = spec.barrier_reach
        channels += [
            f"barrier map of the {sign} clicks: exp(-(change of intensity on the way / {spec.barrier_scale:g} + "
            f"distance / reach)); reach {first:g} patch voxels for the first foreground click, {other:g} for others"
            for sign in ("foreground", "background")
        ]
    channels += [
        f"random walker from the clicks, sigma {sigma_of_walk:g}: scaled log-odds of the foreground, -1 to +1"
        for sigma_of_walk in spec.walker_sigmas
    ]
    return channels


def readme(checkpoint: Checkpoint, name: str) -> str:
    """The content of ``docs/README.md``."""
    spec = checkpoint.spec
    channels = "\n".join(f"{number}. {text}" for number, text in enumerate(channel_descriptions(spec)))
    command = checkpoint.origin.get("command", "not written down")
    return f"""# {name}

A network of DeepGrow 3D ({__version__}), exported as a MONAI bundle: clicks inside and outside of a structure in a CT
or MR become the logits of its mask.

{INTENDED_USE}

## What it computes

Input: float32 (batch, {spec.input_channels}, i, j, k), a patch of {_by(spec.patch_shape)} voxels of
{_by(spec.spacing_mm)} mm at zoom 1, i to the patient's right, j to the front, k to the head (RAS). The region in mm
may be zoomed by {spec.min_zoom:g} to {spec.max_zoom:g} to fit the structure.

Output: float32 logits (batch, 1, i, j, k), positive inside.

Channels, from 0:

{channels}

The bundle is the network alone. `deepgrow3d_app.model.predictor` cuts the region out of a volume, draws the channels,
judges what the network is unsure of by the tissues that the image shows, and restores the mask; `network_inputs` in
`deepgrow3d_app.model.inputs` draws the channels of one patch.

## How to use it

Needs PyTorch, MONAI and nibabel, and for the command line `fire`. Patches are 4-D NIfTI files (`.nii.gz`), channels
last:

```
cd {name}
python -m monai.bundle run --config_file configs/inference.json --dataset_dir PATCHES --output_dir LOGITS
```

For each `PATCHES/x.nii.gz` this writes `LOGITS/x_logits.nii.gz`. In Python, from any folder:

```python
from monai.bundle import load

network = load("{name}", bundle_dir=".", workflow_type="inference").eval()  # MONAI modules, from models/model.pt
script, metadata, _ = load("{name}", bundle_dir=".", load_ts_module=True)  # TorchScript, from models/model.ts
```

`models/model.ts` needs PyTorch alone: `torch.jit.load("models/model.ts")`.

## Where the weights come from

```
{command}
```

All that is written down of their origin stands in `configs/metadata.json`, under `deepgrow3d`.
"""


def _by(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
