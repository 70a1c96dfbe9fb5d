"""Map projections that location encoders were trained with. Each encoder its own: their axes differ."""

import numpy as np
import torch

_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_GEOCLIP_SCALE = 66.50336 / 180


def equal_earth(coordinates: torch.Tensor) -> torch.Tensor:
    """GeoCLIP's input: Equal Earth, (n, 2) of (lat, lon) in degrees to (n, 2) of (x, y), x in [-1, 1].

    Not continuous across the antimeridian.

    >>> equal_earth(torch.tensor([[0.0, 180.0]])).round(decimals=4)
    tensor([[1., 0.]])
    """
    lat, lon = torch.deg2rad(coordinates[:, 0]), torch.deg2rad(coordinates[:, 1])
    theta = torch.asin(np.sqrt(3) / 2 * torch.sin(lat))
    squared = theta**2
    slope = 9 * _A4 * squared**4 + 7 * _A3 * squared**3 + 3 * _A2 * squared + _A1
    x = 2 * np.sqrt(3) * lon * torch.cos(theta) / (3 * slope)
    y = theta * (_A4 * squared**4 + _A3 * squared**3 + _A2 * squared + _A1)
    return torch.stack([x, y], dim=1) * _GEOCLIP_SCALE


MERCATOR_LIMIT = 89.9
"""Degrees: nearer to the poles, where Mercator runs to infinity, latitudes are taken for this."""


def mercator(coordinates: torch.Tensor) -> torch.Tensor:
    """G3's input: Web Mercator (EPSG:3857) over its half width, (n, 2) of (lat, lon) in degrees to (n, 2) of (y, x).

    x in [-1, 1], and y too up to 85.05° of latitude; 2.2422 at MERCATOR_LIMIT, and no farther. The axes are the other
    way round than in ``equal_earth``, and it is no more continuous across the antimeridian.

    >>> mercator(torch.tensor([[85.0511, 90.0]])).round(decimals=4)
    tensor([[1.0000, 0.5000]])
    """
    lat = torch.deg2rad(coordinates[:, 0].clamp(-MERCATOR_LIMIT, MERCATOR_LIMIT))
    y = torch.log(torch.tan(torch.pi / 4 + lat / 2)) / torch.pi
    return torch.stack([y, coordinates[:, 1] / 180], dim=1)
