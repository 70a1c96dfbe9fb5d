"""A picture as a vision tower takes it: normalised patches, on the device, from uint8 pixels."""

from dataclasses import dataclass

import numpy as np
import torch

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

    def patches(self, picture: np.ndarray, device: torch.device | str) -> torch.Tensor:
        """(h, w, 3) uint8 to (rows x columns, 3 x frames x patch²) float32, in blocks of merge x merge patches."""
        rows, columns = self.grid(picture)
        pixels = torch.tensor(picture)
        if torch.device(device).type == "cuda":
            pixels = pixels.pin_memory()  # so that the copy does not wait for what the GPU is at
        pixels = pixels.to(device, non_blocking=True).float().div_(255)
        mean, std = (torch.tensor(values, device=device) for values in (self.mean, self.std))
        pixels = (pixels - mean) / std
        m, p = self.merge, self.patch
        blocks = pixels.reshape(rows // m, m, p, columns // m, m, p, 3).permute(0, 3, 1, 4, 6, 2, 5)
        still = blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, self.frames, -1, -1)
        return still.reshape(rows * columns, -1)
