"""MONAI Label's own radiology app with its model deepgrow_3d, made to run beside ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet

from benchmarks.click_latency.server_process import ServerProcess

MONAI = "monai==1.5.2"
"""With a newer one the app's ``Spacingd`` fails."""

ROOT = Path(__file__).parents[2]
LAUNCHER = Path(__file__).with_name("upstream_launcher.py")
MODEL = "deepgrow_3d"
START_S = 300
FEATURES = (32, 64, 128, 256, 512, 32)
THRESHOLD = 0.3
OTHER_CHANNELS = 1e-3


class UpstreamMissing(Exception):
    """MONAI Label's own app cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What it takes to start MONAI Label's own server.

    Attributes:
        python: the interpreter.
        packages: a folder of packages that come first; ``None`` where ``python`` has all it takes.
        app: a copy of the sample app ``radiology``, with weights.
    """

    python: str
    packages: Path | None
    app: Path

    def server(self, studies: Path, folder: Path) -> ServerProcess:
        """Its server on ``studies``."""
        command = [self.python, str(LAUNCHER), "start_server", "--app", str(self.app), "--studies", str(studies)]
        conf = {
            "models": MODEL,
            "use_pretrained_model": "false",
            "scribbles": "false",
            "skip_trainers": "true",
            "sam2": "false",
        }
        options = [word for name, value in conf.items() for word in ("--conf", name, value)]
        paths = [str(path) for path in (self.packages, ROOT) if path is not None]
        environment = {"PYTHONPATH": os.pathsep.join(paths)}
        return ServerProcess(MODEL, [*command, "--host", "127.0.0.1", *options], folder, environment, START_S)


def prepare(python: str | None, packages: Path, weights: Path, folder: Path) -> Upstream:
    """MONAI Label's own app in ``folder``, with ``weights``.

    Args:
        python: an interpreter that has monailabel and a MONAI that the app works with; ``None`` for this one, with
            ``MONAI`` in ``packages``.
        packages: where ``MONAI`` is installed, unless it is there.
        weights: what :func:`write_weights` wrote.
        folder: where the app is copied to.

    Raises:
        UpstreamMissing: no sample app, or ``MONAI`` cannot be installed.
    """
    if python is None and not list(packages.glob("monai-1.5.2*.dist-info")):
        _install(packages)
    app = folder / "radiology"
    shutil.copytree(_sample_app(python or sys.executable), app, ignore=shutil.ignore_patterns("model", "__pycache__"))
    (app / "model").mkdir()
    shutil.copy(weights, app / "model" / f"{MODEL}.pt")
    return Upstream(python or sys.executable, packages if python is None else None, app)


def write_weights(path: Path) -> None:
    """Weights for deepgrow_3d, as its trainer writes them: random, but for one channel.

    The published ones are not to be had without a network. What a click takes does not depend on the weights, but it
    does depend on the mask: where it touches the border of the region, our server looks again, farther out. So one
    channel of random weights is made to pass on the Gaussians of the clicks, and the mask is a ball around each.
    """
    torch.manual_seed(0)
    network = BasicUNet(spatial_dims=3, in_channels=3, out_channels=1, features=FEATURES)
    weights = network.state_dict()
    foreground, background = 1, 2
    for name, inputs in {
        "conv_0.conv_0": {foreground: 1.0, background: -1.0},
        "conv_0.conv_1": {0: 1.0},
        "upcat_1.convs.conv_0": {0: 1.0},  # what skips the coarser levels comes first
        "upcat_1.convs.conv_1": {0: 1.0},
    }.items():
        weights[f"{name}.conv.bias"][0] = 0
        weights[f"{name}.conv.weight"][0] = 0
        for channel, factor in inputs.items():
            weights[f"{name}.conv.weight"][0, channel, 1, 1, 1] = factor
    weights["final_conv.weight"] *= OTHER_CHANNELS
    weights["final_conv.weight"][0, 0] = 1
    weights["final_conv.bias"][0] = -THRESHOLD
    torch.save({"model": weights}, path)


def device_of(running: ServerProcess) -> str:
    """What its server computes with."""
    return f"PyTorch, {running.info()['models'][MODEL]['config']['device'][0]}"


def _install(packages: Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
    done = subprocess.run([*command, "--target", str(packages), MONAI], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fault = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
        raise UpstreamMissing(f"{MONAI} cannot be installed into '{packages}' ({fault[0]})")


def _sample_app(python: str) -> Path:
    """The sample app that the wheel carries, beside the interpreter's own files."""
    try:
        asked = subprocess.run(
            [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UpstreamMissing(f"'{python}' is no Python that runs ({error})") from error
    app = Path(asked.stdout.strip()) / "monailabel" / "sample-apps" / "radiology"
    if not (app / "main.py").is_file():
        raise UpstreamMissing(f"there is no sample app beside '{python}': install monailabel==0.8.5 there")
    return app
