"""KML: ``gx:Track``, and points with a time stamp."""

import io
from collections.abc import Iterator
from datetime import datetime
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from geoloc.tracks.stamps import read_stamp


def read_kml(data: bytes) -> Iterator[tuple[datetime | None, float, float]]:
    """Namespaces are looked past: there are four of KML alone. Raises ValueError where it is none."""
    try:
        for _, element in defusedxml.ElementTree.iterparse(io.BytesIO(data), forbid_dtd=True):
            kind = _kind(element)
            if kind == "Track":
                yield from _track(element)
            elif kind == "Placemark":
                yield from _placemark(element)
                element.clear()
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise ValueError(f"is no KML that can be read: {error}") from error


def _track(element: Element) -> Iterator[tuple[datetime | None, float, float]]:
    times = [child.text for child in element if _kind(child) == "when"]
    places = [(child.text or "").split() for child in element if _kind(child) == "coord"]
    if len(times) != len(places):
        times = [None] * len(places)  # nobody can say which is whose
    for time, place in zip(times, places, strict=True):
        lon, lat, *_ = [*place, "", ""]  # where a receiver had no place, it is empty
        yield read_stamp(time), _number(lat), _number(lon)


def _placemark(element: Element) -> Iterator[tuple[datetime | None, float, float]]:
    below = {_kind(child): child for child in element.iter()}
    if "when" in below and "Point" in below and "coordinates" in below:
        lon, lat, *_ = [*(below["coordinates"].text or "").split(","), "", ""]
        yield read_stamp(below["when"].text), _number(lat), _number(lon)


def _kind(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
