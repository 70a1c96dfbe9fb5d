"""Photos in the order in which they were taken, chain after chain, and what is known of each."""

from dataclasses import dataclass

import numpy as np

from geoloc.geo.distance import unit_vectors

CANDIDATES = 8
"""Of a photo, the first ones, that are looked at."""


@dataclass(frozen=True)
class Evidence:
    """Of n photos in the order of their chains."""

    chain: np.ndarray
    """(n,) which chain: photos of one follow each other."""
    log_gap: np.ndarray
    """(n,) log10 of the gap to the photo before, minutes or steps of a sequence; NaN at the beginning of a chain."""
    fixes: np.ndarray
    """(n, 3) unit vectors of known places; zeros where there is none."""
    candidates: np.ndarray
    """(n, c, 3) unit vectors of a photo's own candidates, best first; zeros where there are fewer."""
    shares: np.ndarray
    """(n, c) how likely each is the nearest to the truth: they sum to 1, or to 0 without candidates."""

    @property
    def fixed(self) -> np.ndarray:
        """(n,) bool."""
        return (self.fixes != 0).any(-1)

    def __len__(self) -> int:
        return len(self.chain)

    def part(self, rows: slice | np.ndarray) -> "Evidence":
        """Of photos that follow each other."""
        return Evidence(*(value[rows] for value in vars(self).values()))


@dataclass(frozen=True)
class Order:
    """How n photos of a table, in any order, are put into chains."""

    rows: np.ndarray
    """(n,) the table's rows, chain after chain, each in the order in which its photos were taken."""
    chain: np.ndarray
    log_gap: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, positions: np.ndarray, smallest_gap: float, unknown_gap: float) -> "Order":
        """Photos with equal ``groups`` (n,), integers, are a chain, in the order of their ``positions`` (n,): minutes, or numbers
        of a sequence. Gaps below ``smallest_gap`` are that. Photos without position (NaN) come last in their chain, each an
        ``unknown_gap`` after the other."""
        rows = np.lexsort((positions, groups))
        groups, positions = groups[rows], positions[rows]
        gap = np.nan_to_num(np.diff(positions, prepend=np.nan), nan=unknown_gap)
        log_gap = np.log10(np.maximum(gap, smallest_gap))
        new = np.diff(groups, prepend=groups[:1] - 1) != 0
        log_gap[new] = np.nan
        return cls(rows, np.cumsum(new) - 1, log_gap)


def in_one_clock(chain: np.ndarray, minutes: np.ndarray, utc_offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) minutes by the clock of each chain, integers (n,): UTC where the offset from it is told (not NaN) for all its photos, else
    as the camera showed them; and (n,) bool, whether they are UTC.

    >>> in_one_clock(np.array([0, 0, 1, 1]), np.zeros(4), np.array([60, 120, 60, np.nan]))
    (array([ -60., -120.,    0.,    0.]), array([ True,  True, False, False]))
    """
    told = np.bincount(chain, ~np.isnan(utc_offset) | np.isnan(minutes)) == np.bincount(chain)
    utc = told[chain]
    return minutes - np.where(utc, np.nan_to_num(utc_offset), 0), utc


def vectors_or_zeros(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) of places; zeros where a coordinate is NaN."""
    return np.nan_to_num(unit_vectors(lat, lon))
