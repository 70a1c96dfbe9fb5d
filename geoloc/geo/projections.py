"""Map projections that location encoders were trained with. Each encoder its own: their axes differ."""

import numpy as np
import torch

_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_GEOCLIP_SCALE = 66.50336 / 180


def equal_earth(coordinates: torch.Tensor) -> torch.Tensor:
    """GeoCLIP's input: Equal Earth, (n, 2) of (lat, lon) in degrees to (n, 2) of (x, y), x in [-1, 1].

    Not continuous across the antimeridian.
    """
    lat, lon = torch.deg2rad(coordinates[:, 0]), torch.deg2rad(coordinates[:, 1])
    theta = torch.asin(np.sqrt(3) / 2 * torch.sin(lat))
    squared = theta**2
    slope = 9 * _A4 * squared**4 + 7 * _A3 * squared**3 + 3 * _A2 * squared + _A1
    x = 2 * np.sqrt(3) * lon * torch.cos(theta) / (3 * slope)
    y = theta * (_A4 * squared**4 + _A3 * squared**3 + _A2 * squared + _A1)
    return torch.stack([x, y], dim=1) * _GEOCLIP_SCALE
