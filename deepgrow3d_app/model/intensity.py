"""Stored values to the network's intensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepgrow3d_app.volume.volume import Volume

PERCENTILES = (0.5, 99.5)
SAMPLES_PER_AXIS = 64


@dataclass(frozen=True, slots=True)
class IntensityWindow:
    """The stored values (not HU) that become -1 and +1.

    Attributes:
        low, high: stored values; ``low > high`` where larger stored values mean smaller physical ones.
        compress_tails: beyond the window, grow like a logarithm instead of linearly, so that air
            and metal stay in order without drowning soft tissue.
    """

    low: float
    high: float
    compress_tails: bool = True

    @classmethod
    def of(cls, volume: Volume, window_hu: tuple[float, float], compress_tails: bool) -> IntensityWindow:
        """``window_hu`` for a CT; the range between two percentiles of the voxels for any other volume."""
        if volume.is_ct:
            low, high = ((value - volume.intercept) / volume.slope for value in window_hu)
            return cls(low, high, compress_tails)
        strides = tuple(slice(None, None, max(1, extent // SAMPLES_PER_AXIS)) for extent in volume.shape)
        low, high = (float(value) for value in np.percentile(volume.array[strides], PERCENTILES))
        high = max(high, low + 1.0)
        return cls(low, high, compress_tails) if volume.slope > 0 else cls(high, low, compress_tails)

    def normalise(self, stored: Tensor) -> Tensor:
        """Stored values to float intensities, same shape: -1 to +1 inside the window."""
        centred = (stored - (self.low + self.high) / 2) * (2 / (self.high - self.low))
        if not self.compress_tails:
            return centred
        inside = centred.clamp(-1.0, 1.0)
        return inside + torch.sign(centred) * torch.log1p((centred - inside).abs())

    @property
    def darkest(self) -> float:
        """A stored value for what lies outside the volume: well below the window, as air is in a CT."""
        return self.low - 2.0 * (self.high - self.low)
