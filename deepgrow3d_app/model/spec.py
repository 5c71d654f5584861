"""Everything that training and serving must agree on, in one frozen object."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from deepgrow3d_app.errors import CheckpointError
from deepgrow3d_app.volume.geometry import Shape, Spacing

NetworkName = Literal["basic_unet", "compact_unet"]

BTCV_ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a volume and clicks become the network's input, and which network that is.

    It is saved inside the checkpoint, so that a served model sees what it was trained on.

    Attributes:
        network: which architecture (see ``model.network``).
        networks: how many of them answer together: the mean of their logits counts.
        mirrored: whether a trained network sees a patch and its mirror image, left for right, and their mean logits
            count; for a ``compact_unet``. It takes twice the time. Training sees patches as they are.
        channels: feature channels from the finest level to the coarsest, as the architecture reads them.
        patch_shape: voxels (i, j, k) of the network's input, in RAS order.
        spacing_mm: voxel edges of the input at zoom 1; ``patch_shape * spacing_mm`` is the region in mm.
        min_zoom, max_zoom: how far the region may shrink and grow; both 1 for a fixed region.
        stretch: along an axis on which the structure is short, the region may be smaller by up to this, and its voxels
            finer: else a vessel would be seen in voxels as coarse as its length asks for. 1 keeps the proportions.
        window_hu: CT values that are mapped to -1 and +1 (other modalities: the volume's own range).
        compress_tails: whether values beyond the window are compressed logarithmically or kept linear.
        sigma_mm: standard deviation of a click's Gaussian at zoom 1 (it grows and shrinks with the region).
        previous_mask: whether the mask before this click is an input (the 4th).
        barrier_scale: the difference in intensity at which the barrier maps fall to 1/e, in halves of the
            window; 0 leaves these two inputs out.
        barrier_reach: patch voxels at which a barrier map falls to 1/e in homogeneous tissue, for the first
            foreground click and for all others. The first means the structure, a correction its surroundings.
        walker_sigmas: the differences in intensity, in halves of the window, at which the random walkers cross
            less easily by a factor of 0.61; an input for each.
        labels: names that viewers offer; any other name may be asked for.

    Raises:
        ValueError: a number outside of its bounds, in words.
    """

    network: NetworkName = "compact_unet"
    networks: int = 1
    mirrored: bool = False
    channels: tuple[int, ...] = (32, 64, 128, 192)
    patch_shape: Shape = (80, 80, 80)
    spacing_mm: Spacing = (2.0, 2.0, 2.0)
    min_zoom: float = 0.25
    max_zoom: float = 4.0
    stretch: float = 1.5
    window_hu: tuple[float, float] = (-160.0, 240.0)
    compress_tails: bool = True
    sigma_mm: float = 4.0
    previous_mask: bool = True
    barrier_scale: float = 0.15
    barrier_reach: tuple[float, float] = (40.0, 12.0)
    walker_sigmas: tuple[float, ...] = ()
    labels: tuple[str, ...] = BTCV_ORGANS

    def __post_init__(self) -> None:
        for name, is_valid, bound in (
            ("networks", self.networks >= 1, "1 or more"),
            ("mirrored", not self.mirrored or self.network == "compact_unet", "it for a compact_unet only"),
            ("channels", len(self.channels) > 0 and min(self.channels) > 0, "positive numbers"),
            (
                "patch_shape",
                min(self.patch_shape) > 0 and not any(n % self.patch_step for n in self.patch_shape),
                f"positive multiples of {self.patch_step}",
            ),
            ("spacing_mm", all(0 < edge < math.inf for edge in self.spacing_mm), "positive edges"),
            ("min_zoom", 0 < self.min_zoom <= self.max_zoom < math.inf, "a positive one, at most max_zoom"),
            ("stretch", 1 <= self.stretch < math.inf, "1 or more"),
            ("window_hu", self.window_hu[0] < self.window_hu[1], "a low and a higher value"),
            ("sigma_mm", 0 < self.sigma_mm < math.inf, "a positive one"),
            ("barrier_scale", 0 <= self.barrier_scale < math.inf, "0 or a positive one"),
            ("barrier_reach", min(self.barrier_reach) > 0, "positive numbers"),
            ("walker_sigmas", all(0 < sigma < math.inf for sigma in self.walker_sigmas), "positive numbers"),
        ):
            if not is_valid:
                raise ValueError(f"{name} is {getattr(self, name)}; choose {bound}")

    @property
    def patch_step(self) -> int:
        """Extents of the patch are multiples of this: each level of the network halves them."""
        return 2 ** len(self.channels) if self.network == "compact_unet" else 16

    @property
    def input_channels(self) -> int:
        """Image, foreground and background map; then, where used, previous mask, barrier maps and walker maps."""
        return 3 + int(self.previous_mask) + 2 * int(self.barrier_scale > 0) + len(self.walker_sigmas)

    def to_json(self) -> str:
        """A JSON object of all attributes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The inverse of :meth:`to_json`.

        Raises:
            CheckpointError: not such an object, or one of another version of this package.
        """
        try:
            cls(**json.loads(text))  # refuses names that it does not know, which the next line would ignore
            return TypeAdapter(cls).validate_json(text, strict=True)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            fault = " ".join(str(error).split())
            raise CheckpointError(
                f"its model specification is not understood ({fault}). "
                "Use a checkpoint made by this version of DeepGrow 3D."
            ) from error


CLASSIC_SPEC = ModelSpec(
    network="basic_unet",
    channels=(32, 64, 128, 256, 512, 32),
    patch_shape=(128, 128, 128),
    spacing_mm=(1.0, 1.0, 3.0),
    min_zoom=1.0,
    max_zoom=1.0,
    window_hu=(208.0 - 388.0, 208.0 + 388.0),
    compress_tails=False,
    sigma_mm=2.0,
    previous_mask=False,
    barrier_scale=0.0,
)
"""The classic DeepGrow 3D input: image, foreground, background at 1x1x3 mm and (HU - 208) / 388."""
