"""When an answer is right: the distance and the rule, which every figure carries with it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from geoloc.errors import UsageError
from geoloc.geo.distance import EARTH_RADIUS_KM, geodesic_km, haversine_km

GEOGUESSR_KM = 1492.7
"""Decay of the GeoGuessr score on the world map (PIGEON, OSV-5M)."""


@dataclass(frozen=True)
class Protocol:
    """Papers differ in both, and a hit can flip with either. Unanswered photos count as wrong in all of them."""

    distance: Literal["geodesic", "haversine"] = "geodesic"
    """geodesic: on the WGS84 ellipsoid (GeoRanker, G3, GeoCLIP); haversine: on a sphere (PIGEON, OSV-5M, GeoSURGE)."""
    sphere_km: float = EARTH_RADIUS_KM
    """Radius of haversine's sphere, km: OSV-5M has 6371, PIGEON 6378.137."""
    rule: Literal["lt", "le"] = "lt"
    """An error at exactly the threshold is wrong (lt: GeoRanker, G3, PIGEON, OSV-5M) or right (le: GeoCLIP, GeoDecoder)."""

    def check(self) -> None:
        if self.sphere_km <= 0:
            raise UsageError(f"--sphere-km {self.sphere_km}: must be above 0")

    def km(self, lat1, lon1, lat2, lon2) -> np.ndarray:
        """The error of answers (n,); NaN where a coordinate is."""
        if self.distance == "geodesic":
            return geodesic_km(lat1, lon1, lat2, lon2)
        return haversine_km(lat1, lon1, lat2, lon2, self.sphere_km)

    def within(self, km: np.ndarray, threshold: float) -> np.ndarray:
        """Right or wrong; an infinite error, which is no answer, is wrong."""
        return km < threshold if self.rule == "lt" else km <= threshold

    @property
    def sign(self) -> str:
        return "<" if self.rule == "lt" else "<="

    def describe(self) -> str:
        where = "WGS84 geodesic" if self.distance == "geodesic" else f"haversine, R = {self.sphere_km:g} km"
        return f"right if error {self.sign} threshold; {where}; unanswered photos count as wrong"


def geoguessr_score(km: np.ndarray) -> np.ndarray:
    """5000 exp(-error / 1492.7 km), unrounded; 0 for no answer.

    >>> geoguessr_score(np.array([0.0, 1492.7])).round(1)
    array([5000. , 1839.4])
    """
    return 5000 * np.exp(-np.asarray(km) / GEOGUESSR_KM)
