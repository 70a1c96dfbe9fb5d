"""The position that a photo carries: read the way exiftool reads it, or why it cannot be."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from geoloc.geo.distance import haversine_km, valid_coordinates

State = Literal["none", "read", "unreadable", "implausible"]

AGREEING_KM = 2.0
"""Positions that a photo carries twice may lie so far apart: a whole minute of arc is 1.85 km."""

ESTIMATE = "geoloc estimate"
"""How GPSProcessingMethod begins beside an estimate of ours."""
_ESTIMATED = re.compile(ESTIMATE + r"(?: at (-?\d+\.\d+), (-?\d+\.\d+))?")
_SAME_DEGREES = 1e-5

_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\s*/\s*(\d+))?")
_LETTERS = {"GPSLatitude": "NS", "GPSLongitude": "EW"}


@dataclass(frozen=True)
class Position:
    state: State = "none"
    """``none``: the photo carries no position. ``unreadable``: it carries one that cannot be read or told, and
    ``implausible`` one that is no place (0, 0, or off the Earth)."""
    lat: float | None = None
    lon: float | None = None
    source: str | None = None
    """Where it stands: ``exif``, ``xmp``, or the name of a sidecar."""
    problem: str | None = None
    """Why it was not read."""
    error_m: float | None = None
    """By how much it may be off, by the receiver (GPSHPositioningError, metres); None where that is not told."""


def read_position(
    latitude: object, latitude_ref: object, longitude: object, longitude_ref: object, source: str, signed: bool = False
) -> Position:
    """Of values as EXIF or XMP holds them: numbers (one of degrees, two or three with minutes and seconds; NaN for 0/0),
    or text; the references are text, bytes or None. ``signed``: a positive number needs no reference.

    >>> read_position([33.0, 51.0, 24.48], "South", [151.0, 12.918], "e", "exif")
    Position(state='read', lat=-33.8568, lon=151.2153, source='exif', problem=None, error_m=None)
    """
    if latitude is None and longitude is None:
        return Position()
    try:
        lat = _degrees("GPSLatitude", latitude, latitude_ref, signed)
        lon = _degrees("GPSLongitude", longitude, longitude_ref, signed)
    except ValueError as error:
        return Position("unreadable", source=source, problem=f"{source}: {error}")
    return checked(lat, lon, source)


def with_error(position: Position, metres: object) -> Position:
    """With what EXIF or XMP says of its error: a number, or text such as ``65/1``; anything else says nothing.

    >>> with_error(Position("read", 48.85, 2.35, "xmp"), "130/2").error_m
    65.0
    """
    found = _NUMBER.fullmatch(str(metres).strip()) if position.state == "read" and metres is not None else None
    over = float(found[2] or 1) if found else 0.0
    value = float(found[1]) / over if over else math.nan
    return replace(position, error_m=value) if 0 < value < math.inf else position


def estimate_text(lat: float, lon: float, method: str) -> str:
    """GPSProcessingMethod of an estimate. It says where the estimate is, so that a correction of it is told apart."""
    return f"{ESTIMATE} at {lat:.7f}, {lon:.7f} ({method})"


def unless_estimate(position: Position, method: object) -> Position:
    """``none`` for an estimate of ours, by the GPSProcessingMethod beside it: it is nothing that a person or camera knew.

    >>> text = estimate_text(48.85, 2.35, "top1")
    >>> unless_estimate(Position("read", 48.85, 2.35, "exif"), text).state
    'none'
    >>> unless_estimate(Position("read", 48.8584, 2.2945, "exif"), text).state  # somebody has put it right
    'read'
    """
    found = _ESTIMATED.search(method.decode("utf-8", "replace") if isinstance(method, bytes) else str(method or ""))
    if found is None or position.state == "none":
        return position
    at = [float(value) for value in found.groups() if value is not None]
    moved = at and (
        position.state != "read" or max(abs(position.lat - at[0]), abs(position.lon - at[1])) > _SAME_DEGREES
    )
    return position if moved else Position()


def checked(lat: float, lon: float, source: str) -> Position:
    """Of degrees: ``read`` or ``implausible``."""
    if not valid_coordinates(lat, lon):
        return Position("implausible", source=source, problem=f"{source}: {lat:g}, {lon:g} is no place")
    return Position("read", lat, lon, source)


def agreed(positions: Sequence[Position]) -> Position:
    """One position of those that a photo carries, the most trusted first; ``unreadable`` where they contradict."""
    read = [position for position in positions if position.state == "read"]
    for other in read[1:]:
        if haversine_km(read[0].lat, read[0].lon, other.lat, other.lon) > AGREEING_KM:
            problem = f"{_described(read[0])}, but {_described(other)}"
            return Position("unreadable", source=read[0].source, problem=problem)
    by_state = {position.state: position for position in reversed(positions)}
    return next((by_state[state] for state in ("read", "unreadable", "implausible") if state in by_state), Position())


def _described(position: Position) -> str:
    return f"{position.source}: {position.lat:.5f}, {position.lon:.5f}"


def _degrees(name: str, value: object, reference: object, signed: bool) -> float:
    """Raises ValueError where it cannot be told."""
    if value is None:
        raise ValueError(f"no {name}")
    letters, text = _LETTERS[name], _text(value)
    if text is not None:
        value = _numbers(text)
        reference = reference or _hemisphere(text)
        signed |= len(value) == 1
    parts = [float(part) for part in value]
    shown = " ".join(f"{part:g}" for part in parts[:4])
    magnitude, negative = _magnitude(parts, f"{name} {shown}")
    words = (_text(reference) or "").strip("\0 ").upper()
    letter = words[:1]
    if letter and letter not in letters:
        raise ValueError(f"{name}Ref {words!r} is none of {letters[0]} and {letters[1]}")
    if negative and letter == letters[0]:
        raise ValueError(f"{name} {shown} contradicts its reference {letter}")
    if not (letter or negative or signed or magnitude == 0):
        raise ValueError(f"{name} {shown} has no {name}Ref, so its sign is not known")
    return -magnitude if negative or letter == letters[1] else magnitude


def _magnitude(parts: list[float], shown: str) -> tuple[float, bool]:
    """Degrees without sign, and whether they were negative. Parts that are 0/0 count for nothing behind good ones."""
    given = list(parts[:3])
    while given and not math.isfinite(given[-1]):
        given.pop()
    if not given or not all(math.isfinite(part) for part in given):
        raise ValueError(f"{shown} cannot be read")
    if len(given) == 1 < len(parts) and given[0] == int(given[0]):
        raise ValueError(f"{shown} has no minutes")
    first = next((part for part in given if part), 0.0)
    if any(part * first < 0 for part in given) and not (given[0] < 0 and all(part >= 0 for part in given[1:])):
        raise ValueError(f"{shown} has parts of both signs")
    return sum(abs(part) / 60**power for power, part in enumerate(given)), first < 0


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


def _numbers(text: str) -> list[float]:
    """Of ``33,51.408S``, ``33 deg 51' 24.48" S``, ``-33.8568`` or ``33/1 51/1 2448/100``."""
    found = _NUMBER.findall(text)
    if not found:
        raise ValueError(f"{text[:40]!r} has no number")
    return [
        float(top) / float(below) if below and float(below) else math.nan if below else float(top)
        for top, below in found
    ]


def _hemisphere(text: str) -> str | None:
    """The letter or word at its beginning or end."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?i)\bdeg(rees)?\b|e[-+]\d", " ", text))
    return next((word for word in words if word[:1].upper() in "NSEW"), None)
