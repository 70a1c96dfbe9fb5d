"""Why a photo is where it is, in words."""

import numpy as np
import pyarrow as pa

from geoloc.context.collection import Collection, Together, alone
from geoloc.geo.distance import haversine_km

LONGEST_NAME = 100
FAR_KM = 1.0
"""From a photo's own estimate: nearer, nothing is said of it."""


def reasons(collection: Collection, together: Together, uri: pa.ChunkedArray) -> list[str | None]:
    """(n,) for each photo; None for one without answer."""
    known, own = ~np.isnan(collection.known[:, 0]), alone(collection)
    km = haversine_km(own[:, 0], own[:, 1], together.lat, together.lon)
    names = uri.take(pa.array(np.maximum(together.source, 0))).to_pylist()
    gap = collection.position - collection.position[together.source]
    return [
        _reason(row, collection.timed, together.source[row], known, _shown(name), gap[row], km[row])
        for row, name in enumerate(names)
    ]


def _reason(row: int, timed: bool, source: int, known: np.ndarray, name: str, gap: float, km: float) -> str | None:
    if source < 0:
        return None
    if source == row:
        return "its own known place" if known[row] else "its own estimate"
    text = f"{'known place' if known[source] else 'estimate'} of {name}{_when(gap, timed)}"
    return f"{text}; {km:,.0f} km from its own estimate" if km >= FAR_KM else text


def _shown(uri: str | None) -> str:
    """A file's name, as it can be shown anywhere.

    >>> _shown("s3://bucket/trip/IMG_0412\x01.jpg")
    'IMG_0412?.jpg'
    """
    name = (uri or "a photo").rsplit("/", 1)[-1]
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:LONGEST_NAME]


def _when(gap: float, timed: bool) -> str:
    """How much later the photo was taken than the one that carries it.

    >>> _when(3.0, True), _when(-2880.0, True), _when(5.0, False)
    (', 3 minutes before', ', 2 days later', ', before it')
    """
    if np.isnan(gap):
        return ""
    side = "before" if gap >= 0 else "later"
    if not timed:
        return ", before it" if gap >= 0 else ", after it"
    minutes = abs(gap)
    for unit, size in (("days", 1440), ("hours", 60), ("minutes", 1)):
        if minutes >= 2 * size:
            return f", {minutes / size:.0f} {unit} {side}"
    return f", {minutes * 60:.0f} seconds {side}"
