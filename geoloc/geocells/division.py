"""The Earth divided several times over, and the places that these divisions together tell apart."""

from dataclasses import dataclass

import numpy as np

from geoloc.geo.distance import EARTH_RADIUS_KM, unit_vectors
from geoloc.geo.partition import Partition, degrees_of, partition
from geoloc.geocells.methods import GeocellOptions

EXTENT_SHARE = 0.9
"""Of a place's photos, that lie within its extent."""
_TURN_DEGREES = 31.0
"""From one turned partition to the next, about the poles and about an axis in the equator's plane."""


@dataclass(frozen=True)
class Division:
    partitions: tuple[Partition, ...]
    """Coarsest first; of turned coordinates, where they are turned."""
    turned: bool
    lineage: np.ndarray
    """(m, levels) int64: the cell, in each partition, of each of m places."""
    lat: np.ndarray
    """(m,) degrees: with ``lon`` the mean of the place's photos."""
    lon: np.ndarray
    extent_km: np.ndarray
    """(m,) within which 90 % of its photos lie."""
    place: np.ndarray
    """(n,) the place of each photo it was made of; -1 where it is in none."""

    @classmethod
    def of(cls, lat: np.ndarray, lon: np.ndarray, options: GeocellOptions) -> "Division":
        """Of photos at these places (n,), in degrees. Raises UsageError where no cell has enough of them."""
        if options.turned:
            partitions = tuple(
                partition(*_turned(lat, lon, level), [most], options.fewest, options.start_level).finest
                for level, most in enumerate(options.most)
            )
        else:
            partitions = partition(lat, lon, options.most, options.fewest, options.start_level).partitions
        cells = _cells(partitions, options.turned, lat, lon)
        lineage, place = _intersections(cells)
        there = place >= 0
        points = unit_vectors(lat, lon)
        sums = np.stack([np.bincount(place[there], points[there, axis], len(lineage)) for axis in range(3)], axis=1)
        middle = degrees_of(sums)
        return cls(partitions, options.turned, lineage, *middle, _extents(points, sums, place), place)

    def cells(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        """(n, levels): each place's cell in every partition; -1 where it is in none."""
        return _cells(self.partitions, self.turned, lat, lon)


def _cells(partitions: tuple[Partition, ...], turned: bool, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    found = [
        cells.find(*(_turned(lat, lon, level) if turned else (lat, lon))) for level, cells in enumerate(partitions)
    ]
    return np.stack(found, axis=1)


def _turned(lat: np.ndarray, lon: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The globe turned for the ``number``-th partition; the first is as it is."""
    if not number:
        return lat, lon
    points = unit_vectors(lat, lon + number * _TURN_DEGREES)
    angle = np.radians(number * _TURN_DEGREES)
    x, z = points[:, 0].copy(), points[:, 2].copy()
    points[:, 0], points[:, 2] = np.cos(angle) * x - np.sin(angle) * z, np.sin(angle) * x + np.cos(angle) * z
    return degrees_of(points)


def _intersections(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The combinations of cells (n, levels) that there are, (m, levels), and which of them each photo has, (n,); -1 for a photo that
    some partition leaves out."""
    inside = np.flatnonzero((cells >= 0).all(axis=1))
    key = np.zeros(len(inside), np.int64)
    for of_level in cells[inside].T:
        key = np.unique(key * (of_level.max(initial=0) + 1) + of_level, return_inverse=True)[1]
    _, at = np.unique(key, return_index=True)
    place = np.full(len(cells), -1)
    place[inside] = key
    return cells[inside][at], place


def _extents(points: np.ndarray, sums: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(m,) km, of places whose photos' points sum up to ``sums`` (m, 3)."""
    middle = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    there = np.flatnonzero(place >= 0)
    chord = np.linalg.norm(points[there] - middle[place[there]], axis=1)
    order = np.lexsort((chord, place[there]))
    count = np.bincount(place[there], minlength=len(sums))
    at = np.cumsum(count) - count + np.ceil(EXTENT_SHARE * count).astype(np.int64) - 1
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chord[order][at] / 2, 1))
