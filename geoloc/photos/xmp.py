"""What stands in an XMP packet, in a photo or beside it."""

import re
from collections import deque
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from geoloc.photos.position import Position, agreed, read_position, unless_estimate, with_error
from geoloc.photos.times import Taken, first_time, read_time

_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_LOCATIONS = (f"{_IPTC}LocationCreated", f"{_IPTC}LocationShown")
_TIMES = {
    f"{_EXIF}DateTimeOriginal": "exif:DateTimeOriginal",
    "{http://ns.adobe.com/photoshop/1.0/}DateCreated": "photoshop:DateCreated",
    f"{_EXIF}DateTimeDigitized": "exif:DateTimeDigitized",
    "{http://ns.adobe.com/xap/1.0/}CreateDate": "xmp:CreateDate",
}
_AUX, _EXIF_EX = "{http://ns.adobe.com/exif/1.0/aux/}", "{http://cipa.jp/exif/1.0/}"
_SERIALS = (f"{_EXIF_EX}BodySerialNumber", f"{_AUX}SerialNumber")
_OWNERS = (f"{_EXIF_EX}CameraOwnerName", f"{_AUX}OwnerName", "{http://purl.org/dc/elements/1.1/}creator")
_OPENED = re.compile(rb"<(?:\w{1,20}:)?(?:xmpmeta|xapmeta|RDF)\b")
_CLOSED = re.compile(rb"</(?:\w{1,20}:)?(?:xmpmeta|xapmeta|RDF)\s{0,20}>")


class XmpPacket:
    """``source`` is what positions and times from it are said to come from. A malformed packet says nothing, but that it
    may hold a position."""

    def __init__(self, data: bytes, source: str = "xmp") -> None:
        self._source = source
        self._root = _parsed(data)
        self._hidden = self._root is None and b"GPSLatitude" in data.replace(b"\0", b"")
        self._values = {} if self._root is None else _top_values(self._root)

    @property
    def position(self) -> Position:
        """exif:GPSLatitude and exif:GPSLongitude, or else those of the place the photo was taken at, or that it shows."""
        if self._hidden:
            return Position("unreadable", source=self._source, problem=f"{self._source}: is no well-formed XMP")
        own = _position(self._values, self._source)
        if self._root is None or own.state != "none" or f"{_EXIF}GPSLatitude" in self._values:
            return own
        for name in _LOCATIONS:
            places = [_below(element) for element in self._root.iter(name)]
            found = agreed([_position(values, f"{self._source}:{name.split('}')[1]}") for values in places])
            if found.state != "none":
                return found
        return Position()

    @property
    def taken(self) -> Taken | None:
        return first_time(
            read_time(self._values.get(name), f"{self._source}:{short}") for name, short in _TIMES.items()
        )

    @property
    def camera_serial(self) -> str | None:
        return self._first(_SERIALS)

    @property
    def owner(self) -> str | None:
        return self._first(_OWNERS)

    def _first(self, names: tuple[str, ...]) -> str | None:
        return next((self._values[name][:100] for name in names if self._values.get(name)), None)

    @property
    def orientation(self) -> int | None:
        """1 to 8."""
        value = self._values.get("{http://ns.adobe.com/tiff/1.0/}Orientation", "")
        return int(value) if value in tuple("12345678") else None


def _position(values: dict[str, str], source: str) -> Position:
    names = ("GPSLatitude", "GPSLatitudeRef", "GPSLongitude", "GPSLongitudeRef")
    position = read_position(*(values.get(f"{_EXIF}{name}") or None for name in names), source)
    position = with_error(position, values.get(f"{_EXIF}GPSHPositioningError"))
    return unless_estimate(position, values.get(f"{_EXIF}GPSProcessingMethod"))


def _parsed(data: bytes) -> Element | None:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode()
    first, last = _OPENED.search(data), deque(_CLOSED.finditer(data), maxlen=1)
    if first is None or not last:
        return None
    packet = data[first.start() : last[0].end()]
    try:
        return defusedxml.ElementTree.fromstring(packet.decode("utf-8", "replace").encode(), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError):
        return None


def _top_values(root: Element) -> dict[str, str]:
    """Of the properties that are no structures; in both of RDF's spellings, as attributes and as elements."""
    values = {}
    for rdf in root.iter(f"{_RDF}RDF"):
        for description in rdf:
            values |= _own_values(description)
    return values


def _below(element: Element) -> dict[str, str]:
    """Of a structure, in a list or not."""
    values = {}
    for inner in element.iter():
        values |= inner.attrib | _own_values(inner)
    return values


def _own_values(element: Element) -> dict[str, str]:
    children = {child.tag: (child.text or "").strip() for child in element if not len(child)}
    lists = {child.tag: (item.text or "").strip() for child in element for item in list(child.iter(f"{_RDF}li"))[:1]}
    return element.attrib | lists | {name: text for name, text in children.items() if text}
