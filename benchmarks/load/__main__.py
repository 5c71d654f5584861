"""Twenty annotators on one server, with or without random kill -9: what is answered and kept, what memory it takes.

    python -m benchmarks.load --minutes 30
    python -m benchmarks.load --minutes 30 --kills 100

Without kills, any answer that is not 2xx, 409 or 429 is an error. Memory is that of the server and its children
(proportional set size), sampled each second: the mean of the last third beside that of the first after a minute. At
the end, every label that was acknowledged is read back and compared, byte for byte; every JSON file is parsed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import requests

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample-data"
ANNOTATORS = Path(__file__).with_name("annotators.py")
SETTLED_S = 60


class LoadedServer:
    """A server of a folder of studies, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.studies = folder / "studies"
        self.studies.mkdir(parents=True)
        for image in (SAMPLES / "reference" / "mr-hippocampus" / "images").iterdir():
            shutil.copy(image, self.studies)
        shutil.copy(SAMPLES / "studies" / "ct-trunk.nii.gz", self.studies)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = (folder / "server.log").open("ab")
        self.start_s: list[float] = []
        self.start()

    def start(self) -> None:
        started = time.perf_counter()
        words = ["serve", "--studies", str(self.studies), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepgrow3d_app", *words], stdout=self.log, stderr=subprocess.STDOUT, cwd=ROOT
        )
        while True:
            assert self.process.poll() is None, "the server does not start"
            try:
                if requests.get(f"{self.url}/health/ready", timeout=10).ok:
                    break
            except requests.RequestException:
                pass
            time.sleep(0.1)
        self.start_s.append(time.perf_counter() - started)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def memory_mib(self) -> float:
        """Its own and its children's."""
        main = psutil.Process(self.process.pid)
        total = 0.0
        for one in [main, *main.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # a child that has just ended
                total += one.memory_full_info().pss
        return total / 2**20

    def check_labels(self, acknowledged: Path) -> int:
        """Raise where one is lost or changed; how many there were."""
        lines = [json.loads(line) for line in acknowledged.read_text().splitlines()] if acknowledged.exists() else []
        for line in lines:
            where = {"label": line["image"], "version": line["version"]}
            answer = requests.get(f"{self.url}/datastore/label/version", params=where, timeout=60)
            assert answer.ok, f"lost: {line}"
            voxels = np.asarray(nib.Nifti1Image.from_bytes(_unzipped(answer.content)).dataobj).astype(np.uint8)
            assert hashlib.sha256(voxels.tobytes()).hexdigest() == line["sha256"], f"changed: {line}"
        return len(lines)

    def check_json(self) -> int:
        """Raise where a file of JSON is no longer one; how many there were."""
        files = [*self.studies.rglob("*.json"), *self.studies.rglob("*.jsonl")]
        for file in files:
            for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
                json.loads(text)
        return len(files)


def _unzipped(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    generator = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = LoadedServer(folder)
        acknowledged = folder / "acknowledged.jsonl"
        words = ["--headless", "--users", str(given.annotators), "--spawn-rate", "2", "--host", server.url]
        words += [
            "--run-time",
            f"{round(given.minutes * 60)}s",
            "--json-file",
            str(folder / "locust"),
            "--only-summary",
        ]
        locust = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(ANNOTATORS), *words],
            env={**os.environ, "ACKNOWLEDGED": str(acknowledged), "IMAGES": str(server.studies)},
            stdout=(folder / "locust.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        memory: list[float] = []
        started = time.monotonic()
        kills_at = sorted(generator.uniform(5, given.minutes * 60) for _ in range(given.kills))
        while locust.poll() is None:
            time.sleep(0.2 if kills_at else 1)
            elapsed = time.monotonic() - started
            if kills_at and elapsed > kills_at[0]:
                kills_at.pop(0)
                server.kill()
                server.start()
            elif not given.kills and elapsed > SETTLED_S:
                memory.append(server.memory_mib())
        for _ in kills_at:  # those that the restarts left no time for
            server.kill()
            server.start()
        result = report(folder, memory, server, given.kills)
        result["labels"] = server.check_labels(acknowledged)
        result["json_files"] = server.check_json()
        print(json.dumps(result, indent=1))
        if given.json:
            given.json.write_text(json.dumps(result, indent=1))
        server.process.terminate()
        server.process.wait()
        server.log.close()
    sys.exit(1 if not given.kills and (result["errors"] or result.get("memory_ratio", 1) > 1.05) else 0)


def report(folder: Path, memory: list[float], server: LoadedServer, kills: int) -> dict[str, Any]:
    """What locust counted, and what the server took."""
    (file,) = folder.glob("locust*.json")
    rows = json.loads(file.read_text())
    third = max(1, len(memory) // 3)
    result: dict[str, Any] = {
        "requests": {row["name"]: row["num_requests"] for row in rows},
        "errors": sum(row["num_failures"] for row in rows),
        "restart_s_max": round(max(server.start_s), 2),
        "kills": kills,
    }
    if memory:
        result["memory_mib"] = [round(float(np.mean(part)), 1) for part in (memory[:third], memory[-third:])]
        result["memory_mib_each_minute"] = [round(float(mib)) for mib in memory[::60]]
        result["memory_ratio"] = round(float(np.mean(memory[-third:]) / np.mean(memory[:third])), 4)
    return result


if __name__ == "__main__":
    main()
