"""Which arithmetic a device computes fastest with."""

from __future__ import annotations

import functools
import time

import torch
from torch import nn

FEATURES = 32
EXTENT = 32
ROUNDS = 4
ADVANTAGE = 0.9
"""bfloat16 is worth its rounding from this share of float32's time on."""


def reduced_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that ``device`` computes fast with, or ``None`` where float32 is the fastest."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_prefers_bfloat16() else None


@functools.cache
def cpu_prefers_bfloat16() -> bool:
    """Whether this CPU convolves faster in bfloat16: tried once for each process, in a fraction of a second.

    To have the instructions is not enough. Where a processor multiplies bfloat16 in tiles (AMX) it is several times as
    fast, and where it has dot products alone (AVX-512) twice as fast, or half as fast: an Intel Xeon whose tiles the
    hypervisor hides is of the last kind. Where it has neither, bfloat16 is emulated, and not tried.
    """
    if not cpu_has_bfloat16():
        return False
    float32_s, bfloat16_s = convolution_seconds()
    return bfloat16_s < ADVANTAGE * float32_s


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16: without them it is emulated, many times slower."""
    return torch.cpu._is_avx512_bf16_supported()


@torch.inference_mode()
def convolution_seconds() -> tuple[float, float]:
    """A convolution as the network has at half resolution, in float32 and in bfloat16: the least of ``ROUNDS`` each.

    The two take turns, so that other work on the machine slows both.
    """
    convolution = nn.Conv3d(FEATURES, FEATURES, kernel_size=3, padding=1)
    convolution.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    features = torch.zeros(1, FEATURES, EXTENT, EXTENT, EXTENT).to(memory_format=torch.channels_last_3d)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS + 1):  # the first one makes the kernels
        for in_bfloat16, times in seconds.items():
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
                convolution(features)
            times.append(time.perf_counter() - start)
    return min(seconds[False][1:]), min(seconds[True][1:])
