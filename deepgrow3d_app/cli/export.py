"""``deepgrow3d export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app.cli.app import app, console


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint to export (.safetensors).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder; its name becomes the bundle's.")],
) -> None:
    """Write a checkpoint as a MONAI bundle, which runs without this package.

    The bundle is the network alone: it turns patches with all input channels into logits. What a patch is (channels,
    voxels, spacing, intensities, clicks) stands in its metadata and its README. A bundle of that name is replaced,
    unless it holds other files.
    """
    from deepgrow3d_app.model.bundle import export_bundle
    from deepgrow3d_app.model.checkpoint import Checkpoint

    loaded = Checkpoint.load(checkpoint)
    with console.status("tracing the network"):
        export_bundle(loaded, output)
    shape = " x ".join(str(extent) for extent in loaded.spec.patch_shape)
    console.print(
        f"{output}: {loaded.spec.network} for patches of {shape} voxels with {loaded.spec.input_channels} channels; "
        f"docs/README.md says how to run it",
        soft_wrap=True,
    )
