"""``deepgrow3d import-weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepgrow3d_app.cli.app import app, check_output, command_line, console


@app.command()
def import_weights(
    weights: Annotated[Path, typer.Argument(metavar="FILE.pt", help="State dictionary, alone or under 'model'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write (.safetensors).")],
) -> None:
    """Turn the weights of MONAI Label's own deepgrow_3d network into a checkpoint.

    The network computes what it computes in MONAI Label: its kernels are permuted once, because it sees slices
    first. What it is shown still differs. The region is 192 x 192 x 128 mm at 1 mm in RAS order, as in its training,
    and grows to twice that where the mask touches the border; MONAI Label serves 256 x 256 mm around the clicks at
    1.33 mm and all slices squeezed to 128, in the order of the file. Beyond the volume there is air. Gaussians of
    clicks are not added up. An MR is scaled by its own range of values. The mask obeys the clicks. Weights are
    stored as halves (16 bits).

    A pass takes 4.7 million voxels through the network, half a minute on a CPU core: use a GPU, or be patient.
    """
    from deepgrow3d_app.model import imported_weights

    check_output(output, (".safetensors",))
    checkpoint = imported_weights.import_weights(weights, command_line())
    checkpoint.save(output)
    values = sum(tensor.numel() for tensor in checkpoint.weights.values())
    console.print(
        f"{output}: {values} weights as halves, of '{weights.name}'. What differs when served:", soft_wrap=True
    )
    for difference in imported_weights.REMAINING_DIFFERENCES:
        console.print(f"- {difference}", soft_wrap=True, markup=False, highlight=False)
