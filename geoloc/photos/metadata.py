"""What is known of a photo beside its pixels: from the file, from the sidecars beside it, and from its name."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from geoloc.photos.embedded import Embedded
from geoloc.photos.exif import ExifBlock
from geoloc.photos.position import Position, agreed, checked
from geoloc.photos.times import Taken, first_time, time_of_epoch, time_of_name
from geoloc.photos.xmp import XmpPacket


@dataclass(frozen=True)
class Sidecar:
    name: str
    data: bytes | None
    """None: it is there and could not be had."""


@dataclass(frozen=True)
class Metadata:
    position: Position = field(default_factory=Position)
    taken: Taken | None = None
    camera: str | None = None
    camera_serial: str | None = None
    owner: str | None = None


class Carried:
    """What a photo's file itself carries, read as far as it is asked for."""

    def __init__(self, file: Embedded) -> None:
        self._exif = ExifBlock(file.exif) if file.exif else None
        self._file = file

    @functools.cached_property
    def _packets(self) -> list[XmpPacket]:
        return [XmpPacket(packet) for packet in self._file.xmp]

    @property
    def orientation(self) -> int:
        """1 to 8; 1 where it is not told."""
        recorded = self._exif.orientation if self._exif else None
        return recorded or next((packet.orientation for packet in self._packets if packet.orientation), 1)

    def metadata(self, name: str = "", sidecars: Sequence[Sidecar] = ()) -> Metadata:
        """``name`` is the photo's file name.

        Positions in EXIF, in embedded XMP and in XMP sidecars must agree (geoloc.photos.position.AGREEING_KM). A Takeout
        file is asked where they say nothing that can be read, because Google's position may be a guess of its own.
        """
        takeouts, blocks, lost = [], [self._exif, *self._packets] if self._exif else [*self._packets], []
        for sidecar in sidecars:
            if sidecar.data is None:
                lost.append(
                    Position("unreadable", source=sidecar.name, problem=f"{sidecar.name}: could not be fetched")
                )
            elif sidecar.name.lower().endswith(".json"):
                takeouts.append(TakeoutFile(sidecar.data, sidecar.name))
            else:
                blocks.append(XmpPacket(sidecar.data, sidecar.name))
        positions = [*(block.position for block in blocks), *lost]
        if all(position.state != "read" for position in positions):
            positions = [*(takeout.position for takeout in takeouts), *positions]
        times = (block.taken for block in [*blocks, *takeouts])
        taken = first_time(times) or time_of_name(name)
        serial, owner = (
            next(filter(None, (getattr(block, field) for block in blocks)), None)
            for field in ("camera_serial", "owner")
        )
        return Metadata(agreed(positions), taken, self._exif.camera if self._exif else None, serial, owner)


class TakeoutFile:
    """Google Takeout's JSON beside a photo. ``geoData`` is the user's or Google's, ``geoDataExif`` the camera's; zeros say
    that there is none."""

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            content = None
        self._content = content if isinstance(content, dict) else {}

    @property
    def position(self) -> Position:
        for key in ("geoDataExif", "geoData"):
            place = self._content.get(key)
            lat, lon = (place.get("latitude"), place.get("longitude")) if isinstance(place, dict) else (None, None)
            if all(type(value) in (int, float) for value in (lat, lon)) and (lat or lon):
                try:
                    return checked(float(lat), float(lon), self._name)
                except OverflowError:  # an integer of hundreds of digits
                    return Position("implausible", source=self._name, problem=f"{self._name}: is no place")
        return Position()

    @property
    def taken(self) -> Taken | None:
        time = self._content.get("photoTakenTime")
        seconds = time.get("timestamp") if isinstance(time, dict) else None
        return time_of_epoch(seconds, f"{self._name}:photoTakenTime")
