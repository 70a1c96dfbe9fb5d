"""Google's record of where its user was, in the five shapes that it has been given out in.

``Records.json`` and ``Semantic Location History`` of Takeout (until 2024), and the exports of telephones since: Android's
``Timeline.json`` (``semanticSegments``, ``rawSignals``) and the list of an iPhone's ``location-history.json``. A visit says that its
user was there all the time: it is points as close as those of a log that was on (DWELL).
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from geoloc.tracks.stamps import read_stamp
from geoloc.tracks.track import INACCURATE_M

Point = tuple[datetime | None, float, float]
_PAIR = re.compile(r"\s*(?:geo:)?\s*([-+]?\d+(?:\.\d+)?)\s*°?\s*,\s*([-+]?\d+(?:\.\d+)?)\s*°?")
_E7 = 1e7
DWELL, LONGEST_VISIT = timedelta(minutes=30), timedelta(days=30)


def read_timeline(data: bytes) -> Iterator[Point]:
    """Raises ValueError where it is none of these."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON that can be read: {error}") from error
    if isinstance(record, list):
        record = {"semanticSegments": record}
    shapes = {
        "locations": _location,
        "timelineObjects": _timeline_object,
        "semanticSegments": _segment,
        "rawSignals": _signal,
    }
    known = [name for name in shapes if isinstance(record, dict) and isinstance(record.get(name), list)]
    if not known:
        raise ValueError("is no record of places that is known here (Takeout's, or a telephone's Timeline)")
    for name in known:
        for entry in record[name]:
            if isinstance(entry, dict):
                yield from shapes[name](entry)


def _location(entry: dict) -> Iterator[Point]:
    if _metres(entry.get("accuracy")) <= INACCURATE_M:
        yield read_stamp(entry.get("timestamp") or entry.get("timestampMs")), *_e7(entry)


def _timeline_object(entry: dict) -> Iterator[Point]:
    visit, way = _dict(entry, "placeVisit"), _dict(entry, "activitySegment")
    begin, end = (
        read_stamp(times.get(f"{name}Timestamp") or times.get(f"{name}TimestampMs"))
        for times in [_dict(visit or way, "duration")]
        for name in ("start", "end")
    )
    if visit:
        yield from _visit(begin, end, _e7(_dict(visit, "location")))
    elif way:
        yield begin, *_e7(_dict(way, "startLocation"))
        for point in _list(_dict(way, "simplifiedRawPath"), "points"):
            yield read_stamp(point.get("timestamp") or point.get("timestampMs")), *_e7(point)
        yield end, *_e7(_dict(way, "endLocation"))


def _segment(entry: dict) -> Iterator[Point]:
    begin, end = read_stamp(entry.get("startTime")), read_stamp(entry.get("endTime"))
    visit, way = _dict(entry, "visit"), _dict(entry, "activity")
    if visit:
        place = _pair(_dict(visit, "topCandidate").get("placeLocation"))
        yield from _visit(begin, end, place)
    if way:
        yield begin, *_pair(way.get("start"))
        yield end, *_pair(way.get("end"))
    for point in _list(entry, "timelinePath"):
        yield read_stamp(point.get("time")) or _later(begin, point), *_pair(point.get("point"))


def _visit(begin: datetime | None, end: datetime | None, place: tuple[float, float]) -> Iterator[Point]:
    yield begin, *place
    yield end, *place
    if begin and end and DWELL < end - begin <= LONGEST_VISIT:
        for number in range(1, (end - begin) // DWELL + 1):
            yield begin + number * DWELL, *place


def _later(begin: datetime | None, point: dict) -> datetime | None:
    """iPhones count minutes from a path's beginning."""
    try:
        return begin and begin + timedelta(minutes=float(point["durationMinutesOffsetFromStartTime"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _signal(entry: dict) -> Iterator[Point]:
    position = _dict(entry, "position")
    if position and _metres(position.get("accuracyMeters")) <= INACCURATE_M:
        yield read_stamp(position.get("timestamp")), *_pair(position.get("LatLng") or position.get("latLng"))


def _pair(value: object) -> tuple[float, float]:
    """Of ``48.85°, 2.35°``, ``geo:48.85,2.35``, or either as ``latLng`` of an object.

    >>> _pair("48.85°, 2.35°"), _pair({"latLng": "geo:-33.9,151.2"})
    ((48.85, 2.35), (-33.9, 151.2))
    """
    found = _PAIR.fullmatch(str(value.get("latLng") if isinstance(value, dict) else value))
    return (float(found[1]), float(found[2])) if found else (float("nan"), float("nan"))


def _e7(entry: dict) -> tuple[float, float]:
    """The names are those of three editions."""
    values = (
        entry.get(f"{long}E7", entry.get(f"{short}E7")) for long, short in (("latitude", "lat"), ("longitude", "lng"))
    )
    return tuple(value / _E7 if isinstance(value, (int, float)) else float("nan") for value in values)


def _metres(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _dict(entry: dict, name: str) -> dict:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _list(entry: dict, name: str) -> list[dict]:
    value = entry.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
