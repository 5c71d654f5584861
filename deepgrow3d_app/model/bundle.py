"""A checkpoint as a MONAI bundle: a folder that MONAI loads and runs without this package."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from torch import nn

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.model.bundle_network import NETWORK_ID, defined_network, network_definition
from deepgrow3d_app.model.bundle_texts import metadata, readme
from deepgrow3d_app.model.checkpoint import Checkpoint
from deepgrow3d_app.model.spec import ModelSpec
from deepgrow3d_app.volume.atomic_folder import replaced_folder

METADATA_FILE = "configs/metadata.json"
INFERENCE_FILE = "configs/inference.json"
FOLDERS = ("configs", "models", "docs")
OURS = (*FOLDERS, METADATA_FILE, INFERENCE_FILE, "models/model.pt", "models/model.ts", "docs/README.md", "LICENSE")


def export_bundle(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` as the bundle ``path``; the folder appears complete, or not at all.

    It holds ``configs/metadata.json``, ``configs/inference.json``, ``models/model.pt`` (weights, float32),
    ``models/model.ts`` (TorchScript, traced on a patch of the specification's shape), ``docs/README.md`` and
    ``LICENSE``. An older bundle at ``path`` is replaced.

    Raises:
        CheckpointError: the weights do not fit the specification, or are not finite.
        InvalidRequest: ``path`` exists and is no bundle, or one that holds other files, as patches or ``train.json``.
    """
    path = path.resolve()  # its name becomes the bundle's
    if path.exists() and not (path / METADATA_FILE).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise InvalidRequest(
            f"'{path.name}' exists and is no MONAI bundle (it has no {METADATA_FILE}): it is not replaced. "
            "Name a folder that does not exist yet."
        )
    inside = [one.relative_to(path).as_posix() for one in path.rglob("*")]
    if others := sorted(name for name in inside if name not in OURS):
        raise InvalidRequest(
            f"The bundle '{path.name}' holds '{others[0]}', which would be lost. Move it away, or name another folder."
        )
    about = metadata(checkpoint, path.name)
    definition = network_definition(checkpoint.spec)
    network = defined_network(definition, checkpoint.network())
    with replaced_folder(path) as partial:
        for folder in FOLDERS:
            (partial / folder).mkdir()
        _write_json(partial / METADATA_FILE, about)
        _write_json(partial / INFERENCE_FILE, inference_config(definition))
        torch.save(network.state_dict(), partial / "models" / "model.pt")
        _write_torchscript(network, checkpoint.spec, about, partial / "models" / "model.ts")
        (partial / "docs" / "README.md").write_text(readme(checkpoint, path.name), encoding="utf-8")
        (partial / "LICENSE").write_text(_licence(), encoding="utf-8")


def inference_config(definition: dict[str, Any]) -> dict[str, Any]:
    """The content of ``configs/inference.json``: logits for every patch in a folder.

    Patches are NIfTI files (i, j, k, channels), because that is how NIfTI stores channels; the logits are NIfTI files
    (i, j, k) with the same affine. MONAI's own engines would need ``ignite``, one forward pass does not.

    Args:
        definition: of the network, see :func:`network_definition`.
    """
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/patches'",
        "output_dir": "$@bundle_root + '/logits'",
        "weights": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **definition,
        "network": f"$@{NETWORK_ID}.to(@device).eval()",
        "datalist": "$[{'image': file} for file in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": -1},
                {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "device": "@device"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "inferer": {"_target_": "SimpleInferer"},
        "save": {
            "_target_": "SaveImage",
            "output_dir": "@output_dir",
            "output_postfix": "logits",
            "output_dtype": "$np.float32",
            "separate_folder": False,
            "resample": False,
            "print_log": False,
        },
        # Arguments with defaults: the body of a lambda does not see the references of a configuration.
        "segment": (
            "$torch.no_grad()(lambda case, network=@network, inferer=@inferer, save=@save: "
            "save(monai.data.MetaTensor(inferer(case['image'].as_tensor()[None], network)[0], "
            "meta=case['image'].meta)))"
        ),
        "run": [
            "$@network.load_state_dict(torch.load(@weights, map_location=@device, weights_only=True))",
            "$list(map(@segment, @dataset))",
        ],
    }


def _write_torchscript(network: nn.Module, spec: ModelSpec, about: dict[str, Any], path: Path) -> None:
    """Trace ``network`` and save it with ``about``, without the file names of this machine."""
    example = torch.zeros(1, spec.input_channels, *spec.patch_shape)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        # PyTorch discourages TorchScript for new programs. Bundles have no other format that runs without Python code.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        # BasicUNet asks whether shapes are odd. The answer of this patch's shape is the one to keep.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(network, example, check_trace=False)
        unclean = Path(folder) / path.name
        save_net_with_metadata(traced, str(unclean), include_config_vals=False, meta_values=about)
        _copy_without_debug_records(unclean, path)


def _copy_without_debug_records(source: Path, target: Path) -> None:
    """Copy a TorchScript archive without what it knows about the machine that traced it: absolute paths of sources."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for record in old.infolist():
            if not record.filename.endswith(".debug_pkl"):
                new.writestr(record.filename, old.read(record))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _licence() -> str:
    """The text of this package's licence, which goes for what it writes beside the weights."""
    text = importlib.metadata.distribution("deepgrow3d_app").read_text("licenses/LICENSE")
    return text or "Apache-2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
