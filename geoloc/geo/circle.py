"""Circles on the sphere as maps draw them."""

import numpy as np
import shapely
from shapely import affinity

from geoloc.geo.distance import EARTH_RADIUS_KM

_GRID = 1e-5
_FARTHEST = 90 - 1e-5
"""A metre from the pole: at it there are no bearings."""
_WORLD = shapely.box(-180, -90, 180, 90)


def circle(lat: float, lon: float, radius_km: float, points: int = 144) -> shapely.MultiPolygon:
    """Everything as near as that, in degrees of longitude and latitude: cut at the antimeridian, as RFC 7946 (3.1.9) wants it,
    and along the map's edge where it holds a pole."""
    away = radius_km / EARTH_RADIUS_KM
    lat = min(max(lat, -_FARTHEST), _FARTHEST)
    if away >= np.pi:
        return shapely.MultiPolygon([_WORLD])
    north, south = np.radians(90 - lat) < away, np.radians(90 + lat) < away
    if north and south:
        rest = circle(-lat, lon % 360 - 180, (np.pi - away) * EARTH_RADIUS_KM, points)
        return _parts(shapely.difference(_WORLD, rest, grid_size=_GRID))
    ring = _ring(lat, lon, away, points)
    if north or south:
        pole = 90 if north else -90
        ring = [*ring, (ring[-1][0], pole), (ring[0][0], pole)]
    area = shapely.Polygon(ring).buffer(0)
    shifted = [affinity.translate(area, turn) & _WORLD for turn in (-720, -360, 0, 360, 720)]
    return _parts(shapely.union_all(shifted, grid_size=_GRID))


def _ring(lat: float, lon: float, away: float, points: int) -> list[tuple[float, float]]:
    """Longitudes run on beyond 180 degrees."""
    turn, here = np.linspace(0, 2 * np.pi, points + 1), np.radians(lat)
    there = np.arcsin(np.clip(np.sin(here) * np.cos(away) + np.cos(here) * np.sin(away) * np.cos(turn), -1, 1))
    east = np.arctan2(np.sin(turn) * np.sin(away) * np.cos(here), np.cos(away) - np.sin(here) * np.sin(there))
    return list(zip(np.degrees(np.unwrap(east)) + lon, np.degrees(there), strict=True))


def _parts(area: shapely.Geometry) -> shapely.MultiPolygon:
    parts = [part for part in shapely.get_parts(area) if isinstance(part, shapely.Polygon) and part.area > 0]
    return shapely.MultiPolygon(parts)
