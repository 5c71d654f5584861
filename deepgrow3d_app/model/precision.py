"""Which arithmetic a device computes fastest with."""

from __future__ import annotations

import functools
import threading
import time

import torch
from torch.nn.functional import conv3d

FEATURES = 32
EXTENT = 32
ROUNDS = 4
ADVANTAGE = 0.9
"""bfloat16 is used where it takes less than this share of float32's time: a smaller gain is not worth its rounding."""

_TRIAL = threading.Lock()
"""Two at once would take each other's number of threads for that of before."""


def reduced_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that ``device`` computes fast with, or ``None`` where float32 is the fastest."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_prefers_bfloat16() else None


@functools.cache
def cpu_prefers_bfloat16() -> bool:
    """Whether this CPU convolves faster in bfloat16: tried once for each process, in a fraction of a second.

    To have the instructions is not enough. A processor that multiplies bfloat16 in tiles (AMX) is faster with it; one
    that has dot products alone (AVX-512) may be faster or slower: for this convolution, an Intel Xeon whose tiles the
    hypervisor hides takes about twice float32's time. The trial is PyTorch's and decides for OpenVINO, too: both
    compute with oneDNN.
    """
    if not cpu_has_bfloat16():
        return False
    float32_s, bfloat16_s = convolution_seconds()
    return bfloat16_s < ADVANTAGE * float32_s


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has AVX-512's instructions for bfloat16: without them PyTorch emulates it."""
    return torch.cpu._is_avx512_bf16_supported()


@torch.inference_mode()
def convolution_seconds() -> tuple[float, float]:
    """A convolution as the network has at half resolution, in float32 and in bfloat16: the least of ``ROUNDS`` each.

    What counts is the time that one thread computes, and not the clock's: where other programs want the cores, threads
    of a team wait for one another, and the clock says nothing about the arithmetic. PyTorch keeps the number of threads
    for each thread, and the latest one for threads to come: one that first computes during a trial would be left with
    one thread, so trials are for the start of a process.
    """
    # Zeros: whoever has seeded PyTorch's generator finds it as he left it.
    kernel = torch.zeros(FEATURES, FEATURES, 3, 3, 3).to(memory_format=torch.channels_last_3d)
    features = torch.zeros(1, FEATURES, EXTENT, EXTENT, EXTENT).to(memory_format=torch.channels_last_3d)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with _TRIAL:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for _ in range(ROUNDS + 1):  # the first one makes the kernels
                for in_bfloat16, times in seconds.items():
                    start = time.thread_time()
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
                        conv3d(features, kernel, padding=1)
                    times.append(time.thread_time() - start)
        finally:
            torch.set_num_threads(threads)
    return min(seconds[False][1:]), min(seconds[True][1:])
