"""What the C library does with memory that is free, as it and the system count it."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

MANY_THREADS = """
import ctypes, sys, threading
from deepgrow3d_app.model.allocator import share_heaps

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


FREED = """
import ctypes, os, sys
from pathlib import Path
from deepgrow3d_app.model.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
array = libc.malloc(ctypes.c_size_t(3 << 30))  # nothing is written to it, so it takes no memory
assert array
libc.free(ctypes.c_void_p(array))
pages = int(Path("/proc/self/statm").read_text().split()[0])
print(pages * os.sysconf("SC_PAGE_SIZE"))
"""


def addressed_bytes(how: str) -> int:
    """Of a process that has freed an array of 3 GiB."""
    run = subprocess.run([sys.executable, "-c", FREED, how], check=True, timeout=60, capture_output=True, text=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_a_large_array_that_is_freed_is_kept_for_the_next():
    assert addressed_bytes("kept") - addressed_bytes("given back") > 2 << 30
