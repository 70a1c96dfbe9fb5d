"""What photos with a time and a place make of a camera's days: lines on the map, and where it was."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.context.archive import ORDER, by_time, of_several_people
from geoloc.context.units import TRIP_MINUTES

COLUMNS = ["status", "lat", "lon", "because", "place", *ORDER]
"""Of RESULT."""
MOST_DAYS = 400
PLACES = 6
"""Of a day, that are named."""


def placed(rows: pa.Table) -> pa.Table:
    """Rows of COLUMNS that neighbours have a say on, and those that have their own position."""
    return rows.filter(pc.or_(rows["because"].is_valid(), pc.equal(rows["status"], "kept")))


def lines(rows: pa.Table) -> list[tuple[list[float], list[float]]]:
    """Of placed rows: longitudes and latitudes, trip by trip, in the order of time. Cameras of several people draw none."""
    rows = placed(rows)
    used, chain, minutes, _ = by_time(rows)
    own = np.stack([rows[name].to_numpy()[used] for name in ("lat", "lon")], axis=1)
    own[pc.not_equal(rows["status"], "kept").to_numpy()[used]] = np.nan
    used, chain, minutes = (values[~of_several_people(chain, minutes, own)] for values in (used, chain, minutes))
    order = np.lexsort((minutes, chain))
    lat, lon = (rows[name].to_numpy()[used][order] for name in ("lat", "lon"))
    new = (np.diff(chain[order]) != 0) | (np.diff(minutes[order]) > TRIP_MINUTES) | (np.abs(np.diff(lon)) > 180)
    pieces = np.split(np.arange(len(order)), np.flatnonzero(new) + 1)
    return [(lon[piece].tolist(), lat[piece].tolist()) for piece in pieces if len(piece) > 1]


def days(rows: pa.Table) -> list[dict]:
    """Of placed rows, by date, as cameras showed it, and camera: the number of photos, and their places in the order in which they
    were come to, with how many were taken there."""
    rows = placed(rows)
    used, _, minutes, _ = by_time(rows)
    rows = rows.take(pa.array(used[np.argsort(minutes, kind="stable")])).select(["taken_at", "camera", "place"])
    found: dict[tuple, Counter] = {}
    for row in rows.to_pylist():
        place = row["place"] or {}
        where = ", ".join(name for name in (place.get("city"), place.get("country")) if name) or "Open sea"
        found.setdefault((row["taken_at"].date(), row["camera"] or ""), Counter())[where] += 1
    return [
        {
            "day": day.isoformat(),
            "camera": camera,
            "photos": places.total(),
            "places": [f"{name} ({count:,})" for name, count in list(places.items())[:PLACES]],
            "more": max(0, len(places) - PLACES),
        }
        for (day, camera), places in sorted(found.items())
    ]
