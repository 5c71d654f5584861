"""How many heaps the threads of a process end with, as the C library itself counts them."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

MANY_THREADS = """
import ctypes, sys, threading
from deepgrow3d_app.serving.allocator import share_heaps

if sys.argv[2] == "shared":
    assert share_heaps(2)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
barrier = threading.Barrier(7)

def allocate():
    assert libc.malloc(ctypes.c_size_t(5000))
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
barrier.wait()
file = libc.fopen(sys.argv[1].encode(), b"w")
assert libc.malloc_info(0, ctypes.c_void_p(file)) == 0
libc.fclose(ctypes.c_void_p(file))
"""


def heaps_of_six_threads(report, how: str) -> int:
    subprocess.run([sys.executable, "-c", MANY_THREADS, str(report), how], check=True, timeout=60)
    return len(re.findall("<heap nr=", report.read_text()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives threads heaps of their own")
def test_threads_share_two_heaps(tmp_path):
    assert heaps_of_six_threads(tmp_path / "info.xml", "own") > 2
    assert heaps_of_six_threads(tmp_path / "info.xml", "shared") <= 2
