"""Labelled cases, checked and written once as arrays that training maps into memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from deepgrow3d_app.cases.preparation import Fault, Outcome, Preparation
from deepgrow3d_app.cases.prepared_manifest import MANIFEST_FILE, PreparedEntry, PreparedManifest
from deepgrow3d_app.cases.source import CaseSource
from deepgrow3d_app.cases.split import validation_patients
from deepgrow3d_app.cases.structure_table import structure_table
from deepgrow3d_app.cases.worker_process import begin_worker, ctrl_c_held_back
from deepgrow3d_app.errors import Busy, InvalidInput, NotFound, UnreadableVolume
from deepgrow3d_app.volume.atomic_folder import remove_partial_folders
from deepgrow3d_app.volume.geometry import Spacing
from deepgrow3d_app.volume.volume import VOXEL_EDGE_LIMITS_MM

CASES_FOLDER = "cases"
LOCK_FILE = ".lock"
OURS = (CASES_FOLDER, MANIFEST_FILE)
"""All that a prepared folder holds, but for hidden files: the lock, and what a killed process left."""

Progress = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, name of the case that was done last)."""


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """What a run did.

    Attributes:
        manifest: what the folder now holds.
        new: how many cases were prepared by this run; the others were there from an earlier one.
        faults: of all cases, sorted by case.
    """

    manifest: PreparedManifest
    new: int
    faults: tuple[Fault, ...]

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """The faults for which a case was left out."""
        return tuple(fault for fault in self.faults if fault.is_left_out)


def prepare_cases(
    sources: Sequence[CaseSource],
    output: Path,
    spacing_mm: Spacing | None,
    validation_share: float = 0.2,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total, name: None,
) -> PrepareReport:
    """Check ``sources`` and write them to ``output``, where ``find_cases`` finds them.

    A case that is at fault is reported and left out; the others are prepared. Each case appears when it is
    complete, the manifest when all are: after an interruption, the same call goes on where it was. Cases that
    an earlier call prepared from the same files in the same way are kept as they are, even where others bring new
    structures; those that are not among ``sources`` leave the manifest, but not the disk.

    Args:
        sources: of one or several folders; their names are unique.
        output: a folder, made where it is missing.
        spacing_mm: voxel edges of the result in RAS order; None keeps each case's voxels, in RAS order.
        validation_share: share of the patients that is kept for validation, from 0 to below 1.
        seed: draws these patients.
        workers: processes; each takes about 15 bytes of memory for a voxel of its case, stored or resampled.
        progress: see ``Progress``.

    Raises:
        NotFound: no sources.
        InvalidInput: an argument outside its bounds, more structures than a label map has values, or an ``output`` that
            holds something else: prepared arrays would be read from then on in place of what lies there.
        Busy: another process is preparing cases in ``output``.
        OSError: ``output`` cannot be written to, or the disk is full. What is finished is kept.
    """
    _check_arguments(sources, spacing_mm, validation_share, workers)
    _check_output(sources, output)
    chosen, faults = _with_own_names(sources)
    table = structure_table((source.names for source in chosen), _known_table(output))
    preparations = [Preparation(source, output / CASES_FOLDER / source.name, spacing_mm, table) for source in chosen]
    (output / CASES_FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / LOCK_FILE, timeout=0):
            remove_partial_folders(output / CASES_FOLDER)
            outcomes = []
            for outcome in _run_all(preparations, workers):
                outcomes.append(outcome)
                progress(len(outcomes), len(preparations), outcome.case)
            manifest = _manifest(chosen, outcomes, spacing_mm, table, validation_share, seed)
            manifest.write(output)
    except Timeout as error:
        raise Busy(f"Another process prepares cases in '{output}'. Wait for it, or choose another folder.") from error
    faults += [fault for outcome in outcomes for fault in outcome.faults]
    new = sum(outcome.is_new for outcome in outcomes)
    return PrepareReport(manifest, new, tuple(sorted(faults, key=lambda fault: fault.case)))


def _check_output(sources: Sequence[CaseSource], output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise InvalidInput(f"'{output}' is a file. Name a folder for the prepared cases.")
    files = [file for source in sources for file in (source.image, source.labels)]
    # Of a link, its own place counts as well as that of what it leads to: either would be replaced.
    places = (place for file in files for place in (Path(os.path.abspath(file)), _real(file)))
    folders = {folder for place in places for folder in place.parents}
    lies_inside = _real(output) in map(_real, folders)
    names = [path.name for path in output.iterdir()] if output.is_dir() else []
    others = [name for name in names if name not in OURS and not name.startswith(".")]
    if MANIFEST_FILE in names and _has_other_manifest(output):
        others.append(MANIFEST_FILE)
    if others or lies_inside:
        what = f"'{sorted(others)[0]}'" if others else "cases"
        raise InvalidInput(
            f"'{output}' holds {what}, and prepared cases would be read in place of what lies there. "
            "Name a folder of its own."
        )


def _real(path: Path) -> Path:
    """Where links lead to; ``Path.resolve`` raises where they lead in a circle."""
    return Path(os.path.realpath(path))


def _has_other_manifest(output: Path) -> bool:
    """Whether its ``manifest.json`` is somebody's own, as a list of cases; a damaged one of ours is to be replaced."""
    try:
        return PreparedManifest.read(output) is None
    except UnreadableVolume:
        return False


def _known_table(output: Path) -> Mapping[str, int]:
    """Name to value of an earlier call; empty where its manifest is damaged, which the next one replaces."""
    try:
        earlier = PreparedManifest.read(output)
    except UnreadableVolume:
        return {}
    return {} if earlier is None else earlier.table


def _check_arguments(sources: Sequence[CaseSource], spacing_mm: Spacing | None, share: float, workers: int) -> None:
    if not sources:
        raise NotFound("There is no case to prepare. Name a folder with labelled cases.")
    least, greatest = VOXEL_EDGE_LIMITS_MM
    if spacing_mm is not None and not all(least <= edge <= greatest for edge in spacing_mm):
        raise InvalidInput(f"The spacing {spacing_mm} mm is out of range. Choose edges from {least} to {greatest} mm.")
    if not 0 <= share < 1:
        raise InvalidInput(f"The share for validation is {share}. Choose one from 0 to below 1, such as 0.2.")
    if workers < 1:
        raise InvalidInput(f"{workers} workers cannot prepare anything. Choose at least 1.")


def _with_own_names(sources: Sequence[CaseSource]) -> tuple[list[CaseSource], list[Fault]]:
    """The sources that can have a folder of their own, sorted by name, and the faults of the others."""
    chosen: dict[str, CaseSource] = {}
    faults = []
    for source in sources:
        if not source.name or source.name != Path(source.name).name or source.name.startswith("."):
            message = f"'{source.name}' cannot name a folder. Give the case a name without '/' or a leading '.'."
            faults.append(Fault(source.name, source.image, message, True))
        elif source.name in chosen:
            message = (
                f"'{source.image}' and '{chosen[source.name].image}' are both called '{source.name}'. "
                "Rename one of them, or prepare it in another folder."
            )
            faults.append(Fault(source.name, source.image, message, True))
        else:
            chosen[source.name] = source
    return [chosen[name] for name in sorted(chosen)], faults


def _run_all(preparations: Sequence[Preparation], workers: int) -> Iterator[Outcome]:
    """The outcomes as they come; with one worker in this process.

    A worker that is killed, as for want of memory, takes all others with it. Those that may have been at work then are
    tried again one by one: only a case whose process is killed although it was alone is given up.
    """
    if workers == 1:
        yield from map(Preparation.run, preparations)
        return
    waiting = list(preparations)
    while waiting:
        for outcome in _until_killed(waiting, workers):
            waiting = [one for one in waiting if one.source.name != outcome.case]
            yield outcome
        # Started in this order: the ones at work were the first that have no outcome.
        for suspect in waiting[:workers]:
            yield from list(_until_killed([suspect], 1)) or [_lost(suspect.source)]
        waiting = waiting[workers:]


def _until_killed(preparations: Sequence[Preparation], workers: int) -> Iterator[Outcome]:
    """The outcomes as they come, of some where a worker is killed."""
    # Spawned, not forked: the caller may run threads, whose locks a forked child would find taken for ever.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), begin_worker)
    try:
        with ctrl_c_held_back():
            running = [pool.submit(preparation.run) for preparation in preparations]
        for finished in as_completed(running):
            with contextlib.suppress(BrokenProcessPool):
                yield finished.result()
    except BrokenProcessPool:  # before all were submitted
        return
    finally:
        pool.shutdown(cancel_futures=True)


def _lost(source: CaseSource) -> Outcome:
    message = (
        f"The process that was to prepare '{source.image}' was killed, most likely for want of memory, although no "
        "other was at work. Choose a coarser spacing, or prepare it where there is more memory."
    )
    return Outcome(source.name, None, False, (Fault(source.name, source.image, message, True),))


def _manifest(
    sources: Sequence[CaseSource],
    outcomes: Sequence[Outcome],
    spacing_mm: Spacing | None,
    table: Mapping[str, int],
    validation_share: float,
    seed: int,
) -> PreparedManifest:
    structures_of: dict[str, Mapping[str, int]] = {
        outcome.case: outcome.structures for outcome in outcomes if outcome.structures is not None
    }
    prepared = [source for source in sources if source.name in structures_of]
    validation = validation_patients((source.patient for source in prepared), validation_share, seed)
    entries = tuple(
        PreparedEntry(
            source.name,
            source.patient,
            "validation" if source.patient in validation else "training",
            f"{CASES_FOLDER}/{source.name}",
        )
        for source in prepared
    )
    found = {name: value for structures in structures_of.values() for name, value in structures.items()}
    return PreparedManifest(spacing_mm, dict(sorted(found.items(), key=lambda item: item[1])), entries, dict(table))
