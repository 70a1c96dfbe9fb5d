"""A picture as a vision tower takes it: normalised patches, on the device, from uint8 pixels."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geoloc.devices import to_device
from geoloc.photos.views import AreaView
from geoloc.ranking.packing import Grid


@dataclass(frozen=True)
class Patcher:
    """Of a Qwen2-VL-like image processor. Its output is the processor's own, without its way over float pixels on the CPU."""

    patch: int
    merge: int
    frames: int
    """A still picture is a film of so many equal frames."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, processor) -> "Patcher":
        p = processor
        return cls(p.patch_size, p.merge_size, p.temporal_patch_size, tuple(p.image_mean), tuple(p.image_std))

    def view(self, min_pixels: int, max_pixels: int) -> AreaView:
        return AreaView(self.patch * self.merge, min_pixels, max_pixels)

    def grid(self, picture: np.ndarray) -> Grid:
        return picture.shape[0] // self.patch, picture.shape[1] // self.patch

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 to (rows x columns, 3, patch²) uint8, in blocks of merge x merge patches."""
        rows, columns = self.grid(picture)
        m, p = self.merge, self.patch
        blocks = picture.reshape(rows // m, m, p, columns // m, m, p, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        return blocks.reshape(rows * columns, 3, p * p)

    def normalised(self, cuts: Sequence[np.ndarray], device: torch.device | str) -> torch.Tensor:
        """What was cut of several pictures, one after the other: (patches, 3 x frames x patch²) float32, on the device."""
        pixels = to_device(np.concatenate(cuts), device).float().div_(255)
        pixels = pixels.sub_(_constant(self.mean, device)).div_(_constant(self.std, device))
        return pixels[:, :, None].expand(-1, -1, self.frames, -1).flatten(1)


@functools.cache
def _constant(values: tuple[float, ...], device: torch.device | str) -> torch.Tensor:
    """(channels, 1), on the device."""
    return to_device(np.array(values, np.float32)[:, None], device)
