"""The process of a training, as the server holds it: it ends with the server, and when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import torch

from deepgrow3d_app.model.cores import THREADS_VARIABLE, usable_cores
from deepgrow3d_app.retraining.job import JobFolder

STOP_S = 4.5
"""What a process gets to save what is worth keeping; then it is killed."""


class JobProcess:
    """Runs ``deepgrow3d_app.retraining.process`` on a job.

    Args:
        job: its folder, set up.
    """

    def __init__(self, job: JobFolder) -> None:
        self._stopped = threading.Event()
        with job.log_file.open("ab") as log:
            # It reads its standard input, which ends when this process does, however that ends.
            self._process = subprocess.Popen(  # noqa: S603 - our own module, and a folder of our own making
                [sys.executable, "-m", "deepgrow3d_app.retraining.process", str(job.path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,  # Ctrl+C is for the server, which then ends it in order
            )

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Tell it to stop; it is killed where it takes too long over it."""
        self._stopped.set()
        self._process.terminate()

        def kill() -> None:
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

        threading.Thread(target=kill, daemon=True).start()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        status = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status


def _environment() -> dict[str, str]:
    """Of several GPUs the last one trains: the first is where single clicks go when nothing is busy."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if torch.cuda.device_count() > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        numbers = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = numbers[-1]
    if not torch.cuda.is_available():
        environment[THREADS_VARIABLE] = str(max(1, usable_cores() // 2))
    return environment
