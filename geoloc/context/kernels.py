"""Densities over the Earth by distance: mixtures of heavy-tailed kernels, which is what emissions and transitions are made of.

With c the chord (the straight line through the Earth, km), an area of the sphere within c is exactly pi c², so that in

    g_r(c) = r² / (pi (c² + r²)²) / z,    z = 4R² / (4R² + r²)

the mass within c is c² / (c² + r²) / z: half of it lies within the scale r, and a share of (r/c)² beyond c. One kernel more
has no scale: it is the same everywhere. All densities are per km².
"""

from dataclasses import dataclass

import numpy as np

from geoloc.geo.distance import EARTH_RADIUS_KM

SCALES_KM = (0.05, 0.5, 3.0, 15.0, 80.0, 400.0, 2000.0)
"""From one spot to another continent."""

ANYWHERE = 1 / (4 * np.pi * EARTH_RADIUS_KM**2)
"""The density that is the same everywhere."""

_BITS = 19
"""Of a float32's 23 bits of mantissa that are cut off: 16 steps an octave are left."""
_LEAST = 2.0**-24
"""Squared chords are looked up from here on, km²."""


def chords2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared chords, km², between unit vectors (..., m, 3) and (..., n, 3): (..., m, n).

    By differences, not products, which in float32 would lose the last two kilometres.
    """
    out = None
    for axis in range(3):
        difference = a[..., :, None, axis] - b[..., None, :, axis]
        difference *= difference
        out = difference if out is None else np.add(out, difference, out=out)
    out *= np.float32(EARTH_RADIUS_KM**2)
    return out


def kernel_densities(squared: np.ndarray, blur_km: float = 0.0, reach_km: float = np.inf) -> np.ndarray:
    """(..., len(SCALES_KM) + 1) of each kernel at squared chords, km², the last being the same everywhere.

    ``blur_km`` is how far the places compared may themselves lie from what they stand for; ``reach_km`` bounds the scales.

    >>> kernel_densities(np.array([0.0, 1.0])).shape
    (2, 8)
    """
    squared = np.asarray(squared, dtype=np.float64)[..., None]
    scales2 = np.minimum(np.array(SCALES_KM), reach_km) ** 2 + blur_km**2
    whole = 4 * EARTH_RADIUS_KM**2
    densities = scales2 / np.pi / (squared + scales2) ** 2 * ((whole + scales2) / whole)
    return np.concatenate([densities, np.full(squared.shape, ANYWHERE)], axis=-1)


def mass_within(km: np.ndarray) -> np.ndarray:
    """(..., len(SCALES_KM) + 1): the share of each kernel within a chord, km.

    >>> float(mass_within(np.array(3.0))[2].round(3))
    0.5
    """
    squared = np.asarray(km, dtype=np.float64)[..., None] ** 2
    scales2, whole = np.array(SCALES_KM) ** 2, 4 * EARTH_RADIUS_KM**2
    shares = squared / (squared + scales2) * ((whole + scales2) / whole)
    return np.concatenate([shares, squared / whole], axis=-1)


@dataclass(frozen=True)
class Table:
    """A function of the squared chord, looked up 16 times an octave: to 7 % of any density here."""

    values: np.ndarray
    """(..., steps) float32."""

    @classmethod
    def of(cls, function) -> "Table":
        """``function`` takes (steps,) squared chords, km², and gives (..., steps)."""
        return cls(np.ascontiguousarray(function(_middles()), dtype=np.float32))

    @staticmethod
    def steps(squared: np.ndarray) -> np.ndarray:
        """Where squared chords, float32, are looked up."""
        return (np.maximum(squared, np.float32(_LEAST)).view(np.int32) >> _BITS) - _first()

    @property
    def width(self) -> int:
        return self.values.shape[-1]


def _first() -> np.int32:
    return np.float32(_LEAST).view(np.int32) >> _BITS


def _middles() -> np.ndarray:
    last = np.float32(4 * EARTH_RADIUS_KM**2 * 1.01).view(np.int32) >> _BITS
    edges = (np.arange(_first(), last + 2, dtype=np.int32) << _BITS).view(np.float32).astype(np.float64)
    return np.sqrt(edges[:-1] * edges[1:])
