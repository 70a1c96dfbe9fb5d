"""Distances on the Earth. Latitude before longitude, degrees, WGS84; kilometres."""

import numpy as np
from haversine import Unit, haversine_vector
from pyproj import Geod

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (IUGG)."""

THRESHOLDS_KM = (1, 25, 200, 750, 2500)
"""Street, city, region, country, continent: the field's levels of accuracy."""

_WGS84 = Geod(ellps="WGS84")


def haversine_km(lat1, lon1, lat2, lon2, radius_km: float = EARTH_RADIUS_KM) -> np.ndarray:
    """Great-circle distance on a sphere. Arrays broadcast against each other; NaN in, NaN out.

    >>> haversine_km(46.167286, [7.099698, 8.0], 44.173955, 6.697883, radius_km=6371).round(3)
    array([223.874, 244.014])
    """
    lat1, lon1, lat2, lon2 = _broadcast(lat1, lon1, lat2, lon2)
    here, there = (np.stack([lat.ravel(), lon.ravel()], axis=1) for lat, lon in ((lat1, lon1), (lat2, lon2)))
    return radius_km * haversine_vector(here, there, Unit.RADIANS, check=False).reshape(lat1.shape)


def geodesic_km(lat1, lon1, lat2, lon2) -> np.ndarray:
    """Distance along the WGS84 ellipsoid (Karney's algorithm, by PROJ). Arrays broadcast; NaN in, NaN out.

    >>> float(geodesic_km(46.167286, 7.099698, 44.173955, 6.697883).round(6))
    223.76885
    """
    lat1, lon1, lat2, lon2 = (np.array(a) for a in _broadcast(lat1, lon1, lat2, lon2))
    return np.asarray(_WGS84.inv(lon1, lat1, lon2, lat2)[2]) / 1000


def _broadcast(*arrays) -> tuple[np.ndarray, ...]:
    return np.broadcast_arrays(*(np.asarray(array, dtype=np.float64) for array in arrays))


def unit_vectors(lat, lon) -> np.ndarray:
    """Points on the unit sphere, (..., 3): nearest in space is nearest on the sphere.

    >>> unit_vectors([0, 90], [0, 0]).round(6) + 0.0
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    lat, lon = np.radians(np.asarray(lat, dtype=np.float64)), np.radians(np.asarray(lon, dtype=np.float64))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def valid_coordinates(lat, lon) -> np.ndarray:
    """True where (lat, lon) is a place on the Earth. (0, 0), what cameras write when they know nothing, is not.

    >>> valid_coordinates([48.85, 0, 91], [2.35, 0, 0])
    array([ True, False, False])
    """
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    inside = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)  # NaN compares false
    return inside & ~((lat == 0) & (lon == 0))
