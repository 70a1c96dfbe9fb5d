"""Coordinates to vectors: GeoCLIP's location encoder, which G3 has too, with another projection."""

import numpy as np
import torch
from torch import nn

from geoloc.devices import to_device
from geoloc.encoders.geoclip import geoclip_weights
from geoloc.geo.projections import equal_earth, mercator

GEOCLIP_SIGMAS = (2**0, 2**4, 2**8)
LOCATION_DIMENSION = 512
PROJECTIONS = {"equal_earth": equal_earth, "mercator": mercator}
"""What feeds the Fourier features: GeoCLIP's (x, y) or G3's (y, x)."""


class LocationEncoder(nn.Module):
    """Three random-Fourier-feature networks over projected coordinates, summed (GeoCLIP §3.2, G3 §3.2).

    ``forward``: (n, 2) of (lat, lon) in degrees to (n, 512), not normalised.
    """

    def __init__(self, projection: str = "equal_earth") -> None:
        super().__init__()
        self._project = PROJECTIONS[projection]
        self.capsules = nn.ModuleList(_Capsule() for _ in GEOCLIP_SIGMAS)

    @classmethod
    def geoclip(cls, projection: str = "equal_earth") -> "LocationEncoder":
        """With the weights of the package `geoclip`, frozen. G3 starts from them with its own projection."""
        encoder = cls(projection)
        weights = geoclip_weights("location_encoder_weights.pth")
        encoder.load_state_dict({_own_name(name): tensor for name, tensor in weights.items()})
        return encoder.eval().requires_grad_(False)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        projected = self._project(coordinates)
        return sum(capsule(projected) for capsule in self.capsules)

    @torch.inference_mode()
    def encode(self, lat: np.ndarray, lon: np.ndarray, batch: int = 4096) -> np.ndarray:
        """(n,) latitudes and longitudes in degrees to (n, 512) float32, rows of unit length.

        >>> LocationEncoder.geoclip().encode(np.array([48.85]), np.array([2.35])).shape
        (1, 512)
        """
        coordinates = np.stack([lat, lon], axis=1).astype(np.float32)
        coordinates = to_device(coordinates, self.capsules[0].frequencies.device)
        parts = [nn.functional.normalize(self(part), dim=1) for part in coordinates.split(batch)]
        return torch.cat(parts).cpu().numpy() if parts else np.empty((0, LOCATION_DIMENSION), np.float32)


class _Capsule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.empty(256, 2))  # drawn once with its sigma, and frozen
        layers = [nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(1024, 512))

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        angles = 2 * torch.pi * projected @ self.frequencies.T
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


def _own_name(name: str) -> str:
    """`LocEnc1.capsule.3.bias` is our `capsules.1.layers.2.bias`; `capsule.0.b` holds the frequencies."""
    capsule, kind, rest = name.removeprefix("LocEnc").split(".", 2)
    layer, parameter = rest.split(".")
    if kind == "head":
        return f"capsules.{capsule}.layers.6.{parameter}"
    if parameter == "b":
        return f"capsules.{capsule}.frequencies"
    return f"capsules.{capsule}.layers.{int(layer) - 1}.{parameter}"
