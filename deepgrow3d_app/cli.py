"""The command line: ``deepgrow3d serve | predict | train | evaluate``.

Arguments are parsed here, once, into typed objects; the work is done by the floors below. Heavy imports
happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from deepgrow3d_app import __version__
from deepgrow3d_app.errors import DeepGrow3DError, InvalidInput, InvalidRequest

if TYPE_CHECKING:
    from deepgrow3d_app.click.click import Click

DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "apps" / "deepgrow3d" / "model" / "deepgrow3d.safetensors"

app = typer.Typer(
    help="Click-driven segmentation of CT and MR volumes: serve it, use it, train it, judge it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

CheckpointOption = Annotated[
    Path, typer.Option("--checkpoint", help="Trained network (.safetensors).", show_default="the shipped one")
]


def main() -> None:
    """Run the command line; a known fault becomes one line on stderr and exit status 2 (input) or 1."""
    try:
        app()
    except (DeepGrow3DError, OSError) as error:
        Console(stderr=True).print("Error:", str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, InvalidInput) else 1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def serve(
    studies: Annotated[Path, typer.Option(help="Folder of images (.nii, .nii.gz, .nrrd); labels go below it.")] = Path(
        ".data/studies"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
) -> None:
    """Answer clicks over REST, for 3D Slicer, OHIF and scripts."""
    from deepgrow3d_app.serving.launch import serve as launch

    launch(studies, host, port, checkpoint)


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="A .nii, .nii.gz or .nrrd file, or a folder with a DICOM series.")],
    foreground: Annotated[
        list[str], typer.Option("--foreground", "-f", help="A click inside the structure: voxel I,J,K. Repeatable.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the mask goes (.nii, .nii.gz or .nrrd).")],
    background: Annotated[
        list[str] | None, typer.Option("--background", "-b", help="A click outside of it: voxel I,J,K. Repeatable.")
    ] = None,
    previous: Annotated[Path | None, typer.Option(help="The mask before the latest click.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw the mask on three slices (.png).")] = None,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
) -> None:
    """Turn clicks into a mask, without any server.

    Clicks are voxel indices of the stored image, from 0, in the axis order of the file.
    """
    from deepgrow3d_app.model.predictor import Predictor
    from deepgrow3d_app.volume.files import EXTENSIONS, read_mask, read_volume, write_mask
    from deepgrow3d_app.volume.geometry import spacing_mm
    from deepgrow3d_app.volume.grid import check_grid

    clicks = [*_clicks(foreground, True), *_clicks(background or [], False)]
    _check_output(output, EXTENSIONS)
    if output.resolve() in (image.resolve(), *image.resolve().glob("*")):
        raise InvalidRequest(f"'{output}' is the image itself. Write the mask to another file.")
    if picture is not None:
        _check_output(picture, (".png",))
    with console.status("reading"):
        volume = read_volume(image)
        before = None
        if previous is not None:
            before, before_affine = read_mask(previous)
            check_grid(before.shape, before_affine, volume, f"'{previous}'")
        predictor = Predictor.from_checkpoint(checkpoint)
    with console.status("segmenting"):
        prediction = predictor.predict(volume, clicks, before)
    write_mask(prediction.mask, volume.affine, output)
    voxels = int(prediction.mask.sum())
    di, dj, dk = spacing_mm(volume.affine)
    seconds = prediction.crop_s + prediction.network_s + prediction.restore_s
    console.print(
        f"{output}: {voxels} voxels, {voxels * di * dj * dk / 1000:.1f} ml, in {seconds:.2f} s "
        f"({prediction.passes} passes on {predictor.engine.device})",
        soft_wrap=True,
    )
    if picture is not None:
        from deepgrow3d_app.evaluation.picture import draw_mask

        draw_mask(volume, prediction.mask, clicks, picture)
        console.print(
            f"{picture}: mask in red, foreground clicks blue, background clicks orange; titles give the stored index",
            soft_wrap=True,
        )


@app.command()
def train(
    cases: Annotated[
        list[Path],
        typer.Argument(help="Case folders: image.nii.gz and labels.nii.gz, or images/ and labels/ with many cases."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write (.safetensors).")],
    minutes: Annotated[float, typer.Option(help="Wall-clock time to train for.", min=0.01)] = 60.0,
    batch_size: Annotated[int, typer.Option(help="Patches per step.", min=1)] = 2,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.", min=1e-6)] = 1e-3,
    held_out: Annotated[
        int, typer.Option(help="Cases at the end of a many-case folder that are kept for validation.", min=0)
    ] = 40,
    network: Annotated[
        Literal["compact_unet", "basic_unet"],
        typer.Option(help="Ours, or the classic DeepGrow 3D network with its input at 1x1x3 mm."),
    ] = "compact_unet",
    start_from: Annotated[Path | None, typer.Option(help="Go on from this checkpoint's weights and spec.")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
) -> None:
    """Train a network with simulated clicks.

    The checkpoint is saved every five minutes and at the end; a log of JSON lines is written beside it.
    """
    from deepgrow3d_app.model.spec import CLASSIC_SPEC, ModelSpec
    from deepgrow3d_app.training.run import run_training
    from deepgrow3d_app.training.trainer import Recipe

    recipe = Recipe(minutes=minutes, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    # Folder names, not paths: the checkpoint travels.
    command = shlex.join(["deepgrow3d", *(Path(word).name if Path(word).exists() else word for word in sys.argv[1:])])
    spec = ModelSpec() if network == "compact_unet" else CLASSIC_SPEC
    run_training(cases, output, recipe, held_out, spec, start_from, command, console)


@app.command()
def evaluate(
    case: Annotated[Path, typer.Argument(help="A case folder: image.nii.gz, labels.nii.gz and structures.json.")],
    structures: Annotated[
        str | None, typer.Option(help="Names from structures.json, separated by commas.", show_default="all")
    ] = None,
    clicks: Annotated[int, typer.Option(help="Clicks on each structure.", min=1, max=50)] = 5,
    random_walker: Annotated[
        bool, typer.Option(help="Also give the same clicks, and its own, to a random walker.")
    ] = True,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
) -> None:
    """Score the network with simulated clicks: Dice after each, on the stored grid.

    The first click is the structure's deepest voxel, each next one the deepest voxel of the largest error.
    """
    from deepgrow3d_app.evaluation.run import run_evaluation

    wanted = structures.split(",") if structures else None
    run_evaluation(case, checkpoint, wanted, clicks, random_walker, console)


def _check_output(file: Path, extensions: Iterable[str]) -> None:
    """Refuse a file that could not be written, before the work is done and not after."""
    if not file.name.endswith(tuple(extensions)):
        raise InvalidRequest(f"'{file.name}' cannot be written. Let its name end in one of {', '.join(extensions)}.")
    if not file.parent.is_dir():
        raise InvalidRequest(f"There is no folder '{file.parent}' to write '{file.name}' to. Make it first.")


def _clicks(texts: list[str], is_positive: bool) -> list[Click]:
    from deepgrow3d_app.click.click import Click

    clicks = []
    for text in texts:
        try:
            i, j, k = (int(part) for part in text.split(","))
        except ValueError as error:
            raise InvalidRequest(
                f"'{text}' is no click. Write three voxel indices as I,J,K, for example 61,50,70."
            ) from error
        clicks.append(Click((i, j, k), is_positive))
    return clicks
