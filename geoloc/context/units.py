"""What photos were taken together as: bursts, days, trips, albums."""

import numpy as np

from geoloc.context.collection import Collection
from geoloc.errors import UsageError

BURST_MINUTES, DAY_MINUTES, TRIP_MINUTES = 5, 1440, 14 * 1440
"""Photos further apart are of another burst, or trip."""


def units(collection: Collection, by: str) -> np.ndarray:
    """(n,) integers, equal for photos that are hidden together, ``by`` photo, burst, day, trip or album. Raises UsageError for bursts, days and trips without times."""
    if by == "photo":
        return np.arange(len(collection))
    if by == "album":
        return collection.chain
    if not collection.timed:
        raise UsageError(f"--hide-by {by}: the photos have no times; there is photo and album")
    if by == "day":
        days = np.nan_to_num(np.floor(collection.position / DAY_MINUTES), nan=-1)
        return np.unique(np.stack([collection.chain, days]), axis=1, return_inverse=True)[1].ravel()
    order = np.lexsort((collection.position, collection.chain))
    new = np.diff(collection.chain[order], prepend=-1) != 0
    longest = BURST_MINUTES if by == "burst" else TRIP_MINUTES
    new |= ~(np.diff(collection.position[order], prepend=np.nan) <= longest)
    out = np.empty(len(order), np.int64)
    out[order] = np.cumsum(new)
    return out
