"""Why a photo is where it is, in words."""

import numpy as np
import pyarrow as pa

from geoloc.context.collection import Collection, Together, alone
from geoloc.geo.distance import haversine_km

LONGEST_NAME = 100
FAR_KM = 1.0
"""From a photo's own estimate: nearer, nothing is said of it."""


def reasons(
    collection: Collection, together: Together, uri: pa.ChunkedArray, rows: np.ndarray | None = None
) -> list[str | None]:
    """(n,) for each photo, or for ``rows`` alone; None for one without answer."""
    rows = np.arange(len(collection)) if rows is None else rows
    source, track = together.source[rows], together.track[rows]
    known, own = ~np.isnan(collection.known[:, 0]), alone(collection)[rows]
    km = haversine_km(own[:, 0], own[:, 1], together.lat[rows], together.lon[rows])
    names = uri.take(pa.array(np.maximum(source, 0))).to_pylist()
    tracks = collection.company.tracks if collection.company else ()
    texts: list[str | None] = []
    for place, row in enumerate(rows.tolist()):
        when = _when(together.gap[row], collection.timed)
        if track[place] >= 0:
            text = f"track {_shown(tracks[track[place]].name)}{when}"
        elif source[place] < 0:
            texts.append(None)
            continue
        elif source[place] == row:
            texts.append("its own known place" if known[row] else "its own estimate")
            continue
        else:
            kind = "known place" if known[source[place]] else "estimate"
            text = f"{kind} of {_shown(names[place])}{when}"
        texts.append(f"{text}; {km[place]:,.0f} km from its own estimate" if km[place] >= FAR_KM else text)
    return texts


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
    if minutes * 60 < 1:
        return ", at that moment"
    for unit, size in (("days", 1440), ("hours", 60), ("minutes", 1)):
        if minutes >= 2 * size:
            return f", {minutes / size:.0f} {unit} {side}"
    return f", {minutes * 60:.0f} seconds {side}"
