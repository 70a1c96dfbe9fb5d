"""GPX 1.0 and 1.1: the points of tracks, and waypoints that have a time."""

from collections.abc import Iterator
from datetime import datetime

import gpxpy
import gpxpy.gpx

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_gpx(data: bytes) -> Iterator[tuple[datetime | None, float, float]]:
    """Raises ValueError where it is none."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError("declares a document type, which no GPX does")
    try:
        gpx = gpxpy.parse(data.decode("utf-16") if data[:2] in _UTF16 else data)
    except (gpxpy.gpx.GPXException, UnicodeDecodeError, LookupError) as error:
        raise ValueError(f"is no GPX that can be read: {error}") from error
    for point, *_ in gpx.walk():
        yield point.time, point.latitude, point.longitude
    for point in gpx.waypoints:
        if point.time:
            yield point.time, point.latitude, point.longitude
