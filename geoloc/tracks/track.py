"""Where somebody was, as a GPS receiver or a telephone logged it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from geoloc.context.transition import AIRLINER_KM_PER_MINUTE, SLACK_KM
from geoloc.geo.distance import haversine_km, valid_coordinates

INACCURATE_M = 500
"""A point that may lie further off says where somebody was no better than a photo does."""


@dataclass(frozen=True)
class Track:
    """One file's points, in the order of their times, of which no two are equal."""

    name: str
    minutes: np.ndarray
    """(n,) float64 since 1970, UTC."""
    places: np.ndarray
    """(n, 2) degrees."""
    left_out: int = 0
    """Points without time or place, and those that nobody can have been at between the two beside them."""

    def __len__(self) -> int:
        return len(self.minutes)

    @classmethod
    def of(cls, name: str, points: Iterable[tuple[datetime | None, float, float]]) -> "Track":
        """Points in any order: a time (with a zone, or UTC), latitude and longitude."""
        read = [(np.nan if at is None else _minutes(at), lat, lon) for at, lat, lon in points]
        values = np.array(read, dtype=np.float64).reshape(-1, 3)
        good = ~np.isnan(values[:, 0]) & valid_coordinates(values[:, 1], values[:, 2])
        minutes, first = np.unique(values[good, 0], return_index=True)
        places = values[good, 1:][first]
        possible = ~_jumps(minutes, places)
        left_out = int((~good).sum() + (~possible).sum())
        return cls(name, minutes[possible], places[possible], left_out)


def _minutes(at: datetime) -> float:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() / 60


def _jumps(minutes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) points that an airliner reaches neither from the point before nor to the one after, while it may fly past them.

    >>> _jumps(np.arange(3.0), np.array([[48.0, 2.0], [10.0, 2.0], [48.0, 2.0]]))
    array([False,  True, False])
    """
    jumps = np.zeros(len(minutes), bool)
    if len(minutes) > 2:
        near = _reached(minutes[:-1], places[:-1], minutes[1:], places[1:])
        jumps[1:-1] = ~near[:-1] & ~near[1:] & _reached(minutes[:-2], places[:-2], minutes[2:], places[2:])
    return jumps


def _reached(before: np.ndarray, start: np.ndarray, after: np.ndarray, end: np.ndarray) -> np.ndarray:
    return haversine_km(*start.T, *end.T) <= SLACK_KM + AIRLINER_KM_PER_MINUTE * (after - before)
