"""What stands in an EXIF block. A malformed block says nothing; reading it never raises."""

import functools
import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from PIL import ExifTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from geoloc.photos.position import Position, read_position, unless_estimate, with_error
from geoloc.photos.times import Taken, first_time, offset_between, read_time

_SIGNED_TYPES = (6, 8, 9, 10, 11, 12)
"""TIFF's numbers that have a sign (SBYTE … DOUBLE)."""
_BIG_TIFF = 43
_TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_T = TypeVar("_T")


class ExifBlock:
    """``data`` is a TIFF structure."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._header = data[:16] if _BIG_TIFF in data[2:4] else data[:8]
        empty = ImageFileDirectory_v2()
        self._root = self._quietly(lambda: self._directory(ImageFileDirectory_v2(self._header).next), empty)
        self._exif = self._quietly(lambda: self._below(ExifTags.IFD.Exif), empty)
        self._gps_at: int | None = None
        self._gps = self._quietly(lambda: self._below(ExifTags.IFD.GPSInfo), None)

    @property
    def orientation(self) -> int | None:
        """1 to 8."""
        value = self._quietly(lambda: int(self._root.get(ExifTags.Base.Orientation)), 0)
        return value if 1 <= value <= 8 else None

    @property
    def camera(self) -> str | None:
        return self._quietly(self._camera, None)

    @property
    def camera_serial(self) -> str | None:
        return self._quietly(lambda: _text(self._exif.get(ExifTags.Base.BodySerialNumber)), None)

    @property
    def owner(self) -> str | None:
        """CameraOwnerName, or else Artist."""
        tags = (self._exif.get(ExifTags.Base.CameraOwnerName), self._root.get(ExifTags.Base.Artist))
        return self._quietly(lambda: next(filter(None, map(_text, tags)), None), None)

    @property
    def position(self) -> Position:
        return self._quietly(self._position, Position("unreadable", source="exif", problem="exif: cannot be read"))

    @property
    def taken(self) -> Taken | None:
        """DateTimeOriginal, or DateTimeDigitized; never DateTime, which tells when the file was changed. Where no offset from UTC
        is told, it is that of the time that came with the GPS fix, if there is one of the same moment."""
        taken = first_time(self._quietly(functools.partial(self._time, *tags), None) for tags in _TIMES)
        if taken is None or taken.utc_offset_minutes is not None:
            return taken
        return replace(
            taken, utc_offset_minutes=self._quietly(lambda: offset_between(taken.at, self._gps_time()), None)
        )

    def _gps_time(self) -> datetime | None:
        """UTC."""
        date, clock = self._gps.get(ExifTags.GPS.GPSDateStamp), self._gps.get(ExifTags.GPS.GPSTimeStamp)
        hours, minutes, seconds = (float(part) for part in clock)
        taken = read_time(f"{_text(date)} 00:00:00", "exif:GPSDateStamp")
        return taken and taken.at + timedelta(hours=hours, minutes=minutes, seconds=seconds)

    def _directory(self, offset: int) -> ImageFileDirectory_v2:
        directory = ImageFileDirectory_v2(self._header)
        self._file.seek(offset)
        directory.load(self._file)
        return directory

    def _below(self, pointer: int) -> ImageFileDirectory_v2:
        offset = self._root.get(pointer)
        if offset is None and pointer == ExifTags.IFD.GPSInfo:  # some programs hang it there
            offset = self._exif.get(pointer)
        if pointer == ExifTags.IFD.GPSInfo:
            self._gps_at = offset
        return ImageFileDirectory_v2() if offset is None else self._directory(int(offset))

    def _quietly(self, read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            with warnings.catch_warnings(action="ignore"):
                return read()
        except Exception:  # EXIF is arbitrary bytes, and its reader raises whatever they lead it to
            return otherwise

    def _position(self) -> Position:
        tags = ExifTags.GPS
        if self._gps is None:
            return Position("unreadable", source="exif", problem="exif: its GPS directory cannot be read")
        if self._lost_coordinates():
            return Position("unreadable", source="exif", problem="exif: its coordinates lie beyond its end")
        types = {self._gps.tagtype.get(tag) for tag in (tags.GPSLatitude, tags.GPSLongitude)}
        position = read_position(
            _parts(self._gps.get(tags.GPSLatitude)),
            self._gps.get(tags.GPSLatitudeRef),
            _parts(self._gps.get(tags.GPSLongitude)),
            self._gps.get(tags.GPSLongitudeRef),
            "exif",
            signed=types <= set(_SIGNED_TYPES),
        )
        position = with_error(position, self._quietly(lambda: float(self._gps.get(tags.GPSHPositioningError)), None))
        return unless_estimate(position, self._gps.get(tags.GPSProcessingMethod))

    def _lost_coordinates(self) -> bool:
        """Whether the GPS directory names coordinates whose values Pillow could not have, and passed over."""
        wanted = {ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude} - set(self._gps)
        if not wanted or self._gps_at is None or _BIG_TIFF in self._header[2:4]:
            return False
        order = "<" if self._header[:2] == b"II" else ">"
        self._file.seek(self._gps_at)
        (count,) = struct.unpack(f"{order}H", self._file.read(2))
        entries = self._file.read(12 * count)
        return len(entries) < 12 * count or any(tag in wanted for (tag,) in struct.iter_unpack(f"{order}H10x", entries))

    def _time(self, tag: int, subseconds: int, offset: int) -> Taken | None:
        text = self._exif.get(tag) or self._root.get(tag)
        zone = self._exif.get(offset)
        if zone is None and text == self._root.get(ExifTags.Base.DateTime):  # then its offset is this one's
            zone = self._exif.get(ExifTags.Base.OffsetTime)
        return read_time(text, f"exif:{ExifTags.Base(tag).name}", self._exif.get(subseconds), zone)

    def _camera(self) -> str | None:
        make, model = (str(self._root.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        name = model if model.startswith(make) else f"{make} {model}"
        return name.encode("utf-8", "replace").decode()[:100] or None


def _text(value: object) -> str | None:
    """Without what programs fill it up with."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
    return text.split("\0")[0].strip().encode("utf-8", "replace").decode()[:100] or None


def _parts(value: object) -> object:
    """Numbers of degrees, minutes and seconds as a sequence; text as it is."""
    if value is None or isinstance(value, str):
        return value or None
    return value if isinstance(value, (bytes, tuple)) else (value,)
