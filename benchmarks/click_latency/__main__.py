"""What a click takes, seen by a viewer: this server beside MONAI Label's own deepgrow_3d, both over HTTP.

    python -m benchmarks.click_latency
    python -m benchmarks.click_latency --only ours info annotators
    python -m benchmarks.click_latency --only ours upstream --volumes ct-trunk --json runs/click-latency.json

Each server is a process of its own, started for one volume: the sample CT, a slab, and 512 x 512 x 300 generated
voxels. A simulated annotator clicks once, then again and again where the answer is most wrong, and takes the last
click back; requests are those of 3D Slicer. Parts:

    ours            this server with the shipped network
    same-network    this server with upstream's network and weights, imported: what the engine is worth
    upstream        MONAI Label's radiology app, which the wheel carries, with monai 1.5.2 (installed into
                    runs/upstream-packages at the first run; left out, with the reason, where that fails)
    info            how fast /info/ is answered while 10 clicks run
    annotators      1, 4 and 16 annotators at once, each on an image of his own

Upstream takes half a minute a click on idle cores, so it makes fewer; all parts together take 15 minutes or more.
Upstream's published weights cannot be had without the internet: they are made up (see write_weights).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from benchmarks.click_latency import ours, upstream
from benchmarks.click_latency.measurements import (
    Figures,
    Step,
    measure_crowd,
    measure_info,
    measure_session,
    record_clicks,
)
from benchmarks.click_latency.report import (
    OURS,
    SAME_NETWORK,
    UPSTREAM,
    machine,
    print_machine,
    print_report,
    write_json,
)
from benchmarks.click_latency.server_process import ServerFailed, ServerProcess
from benchmarks.click_latency.studies import (
    LARGE,
    NAMES,
    SLAB,
    TRUNK,
    TRUNK_FOLDER,
    Study,
    decoy_image,
    forget_on_disk,
    generated_study,
    sample_study,
)
from deepgrow3d_app.errors import DeepGrow3DError

ROOT = Path(__file__).parents[2]
PARTS = ("ours", "same-network", "upstream", "info", "annotators")
PACKAGES = Path("runs") / "upstream-packages"
"""In the checkout."""
INFO_CLICKS = 10
CROWD_CLICKS = 6


class Benchmark:
    """Runs the parts that were asked for, one after the other.

    Args:
        options: what the command line says.
        folder: for everything that is written; gone afterwards.
        step: told of progress.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, step: Step) -> None:
        self.figures = Figures()
        self._options = options
        self._folder = folder
        self._step = step
        self._weights = folder / "upstream.pt"
        self._servers = 0
        self._studies: dict[str, Study] = {}

    def run(self) -> None:
        """Everything; what fails is noted, and the rest goes on."""
        parts = self._options.only
        if "ours" in parts:
            for name in self._options.volumes:
                self._measure(OURS, name, ours.server, self._options.clicks)
        if "info" in parts:
            with self._noting("/info/ while clicks run"):
                self._run_info()
        if "annotators" in parts:
            with self._noting("annotators at the same time"):
                self._run_crowds()
        if {"same-network", "upstream"} & set(parts):
            upstream.write_weights(self._weights)
        if "same-network" in parts:
            with self._noting(SAME_NETWORK):
                self._run_same_network()
        if "upstream" in parts:
            with self._noting(UPSTREAM):
                self._run_upstream()

    def _run_same_network(self) -> None:
        checkpoint = self._folder / "imported.safetensors"
        ours.import_weights(self._weights, checkpoint)
        make = partial(ours.server_of, checkpoint, self._folder / "kept")
        # It takes minutes and much memory to convert this network: once is enough, and not while clicks are timed.
        self._step(f"{SAME_NETWORK}: converting the network")
        started = time.perf_counter()
        with self._started(make, {}) as server:
            device, peak_gb = ours.wait_for_engine(server), server.peak_bytes / 1e9
        self.figures.notes.append(
            f"{SAME_NETWORK}: starting for the first time and converting the network took "
            f"{time.perf_counter() - started:.0f} s and {peak_gb:.1f} GB, not in the table; then it had {device}."
        )
        for name in self._options.volumes:
            self._measure(SAME_NETWORK, name, make, self._options.slow_clicks)

    def _run_upstream(self) -> None:
        self._step("preparing upstream")
        theirs = upstream.prepare(self._options.upstream_python, ROOT / PACKAGES, self._weights, self._folder)
        for name in self._options.volumes:
            self._measure(UPSTREAM, name, theirs.server, self._options.slow_clicks)

    def _run_info(self) -> None:
        study = self._study(LARGE if LARGE in self._options.volumes else self._options.volumes[0])
        with self._started(ours.server, {study.name: study.image}) as server:
            ours.wait_for_engine(server)
            self.figures.info = measure_info(server, study, INFO_CLICKS, self._options.extension, self._step)

    def _run_crowds(self) -> None:
        study, extension = self._study(TRUNK), self._options.extension
        crowds = [
            [f"{study.name}-{size}-{number}" for number in range(size)] for size in sorted(self._options.annotators)
        ]
        images = dict.fromkeys((study.name, *(name for crowd in crowds for name in crowd)), study.image)
        with self._started(ours.server, images) as server:
            ours.wait_for_engine(server)
            recorded = record_clicks(server, study, CROWD_CLICKS, extension, self._step)
            for crowd in crowds:
                self.figures.crowds.append(measure_crowd(server, crowd, recorded, extension, self._step))

    def _measure(self, side: str, name: str, make: Callable[[Path, Path], ServerProcess], click_count: int) -> None:
        """One side on one volume, with a server of its own."""
        with self._noting(f"{side} on {name}"):
            study = self._study(name)
            self._step(f"{side} on {name}: starting")
            with self._started(make, {study.name: study.image}) as server:
                device = upstream.device_of(server) if side == UPSTREAM else ours.wait_for_engine(server)

                def step(done: str) -> None:
                    self._step(f"{side} on {name}: {done}")

                session = measure_session(server, side, device, study, click_count, self._options.extension, step)
                self.figures.sessions.append(session)

    @contextlib.contextmanager
    def _started(self, make: Callable[[Path, Path], ServerProcess], images: dict[str, Path]) -> Iterator[ServerProcess]:
        """A server on copies of ``images``, none of which anybody has read before."""
        self._servers += 1
        folder = self._folder / f"server-{self._servers}"
        studies = folder / "studies"
        studies.mkdir(parents=True)
        decoy_image(studies / "a-decoy.nii.gz")
        for name, image in images.items():
            copy = studies / f"{name}.nii.gz"
            shutil.copy(image, copy)
            forget_on_disk(copy)
        try:
            with make(studies, folder) as server:
                yield server
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _study(self, name: str) -> Study:
        if name not in self._studies:
            self._step(f"reading or making {name}")
            if name == TRUNK:
                self._studies[name] = sample_study(name, TRUNK_FOLDER)
            elif name == SLAB and self._options.ct_slab is not None:
                self._studies[name] = sample_study(name, self._options.ct_slab)
            else:
                self._studies[name] = generated_study(name, self._folder)
        return self._studies[name]

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ServerFailed, upstream.UpstreamMissing) as error:
            self.figures.missing[what] = str(error)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.click_latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="some of the parts")
    made.add_argument(
        "--volumes", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"some of {', '.join(NAMES)}"
    )
    made.add_argument("--clicks", type=int, default=20, help="later clicks of the shipped network (default 20)")
    made.add_argument(
        "--slow-clicks", type=int, default=3, help="later clicks of upstream's network, on both sides (default 3)"
    )
    made.add_argument(
        "--annotators", nargs="+", type=int, default=[1, 4, 16], help="who click at once (default 1 4 16)"
    )
    made.add_argument(
        "--extension", choices=(".nrrd", ".nii.gz"), default=".nrrd", help="of the masks (default .nrrd, as Slicer)"
    )
    made.add_argument(
        "--ct-slab", type=Path, metavar="FOLDER", help="a labelled case (image, labels, structures.json) as ct-slab"
    )
    made.add_argument(
        "--upstream-python",
        metavar="PYTHON",
        help=f"an interpreter with monailabel 0.8.5 and {upstream.MONAI}, in place of this one and {PACKAGES}",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure to it")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables."""
    options = parser().parse_args(arguments)
    if min(options.clicks, options.slow_clicks, *options.annotators) < 1:
        parser().error("--clicks, --slow-clicks and --annotators are at least 1")
    console = Console()
    facts = machine()
    print_machine(facts, console)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no server is left behind
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="click-latency-") as folder, Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None)
        benchmark = Benchmark(options, Path(folder), lambda done: bar.update(task, description=done))
        try:
            benchmark.run()
        except DeepGrow3DError as error:
            parser().error(str(error))
    print_report(benchmark.figures, console)
    if options.json is not None:
        write_json(benchmark.figures, facts, options.json)
        console.print(f"Every figure: {options.json}")


if __name__ == "__main__":
    main()
