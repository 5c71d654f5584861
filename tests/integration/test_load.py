"""Twenty annotators at once, for some minutes: nothing but "busy" is refused, and what was acknowledged is there.

Memory is judged by `make load`: in minutes, caches are still filling.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
MINUTES = os.environ.get("DEEPGROW3D_LOAD_MINUTES", "5")


def test_twenty_annotators(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    command = [sys.executable, "-m", "benchmarks.load", "--minutes", MINUTES, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert file.is_file(), done.stdout + done.stderr
    result = json.loads(file.read_text())
    print(result)
    assert result["errors"] == 0, result
    assert result["labels"] > 0
    assert result["requests"]["click"] > 0
