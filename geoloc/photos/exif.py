"""What the camera wrote beside the picture. A malformed block says nothing; it never raises."""

import math
from dataclasses import dataclass
from datetime import datetime

from PIL import ExifTags, Image

from geoloc.geo.distance import valid_coordinates


@dataclass(frozen=True)
class Exif:
    orientation: int = 1
    lat: float | None = None
    lon: float | None = None
    taken_at: datetime | None = None
    """By the camera's clock; no time zone."""
    camera: str | None = None


def read_exif(image: Image.Image) -> Exif:
    """Of an opened image, without decoding its pixels.

    Coordinates that are out of range, incomplete, malformed or (0, 0) are not given.
    """
    block = _quietly(_block, image)
    if not block:
        return Exif()
    position = _quietly(_position, block)
    lat, lon = position or (None, None)
    return Exif(_quietly(_orientation, block) or 1, lat, lon, _quietly(_taken_at, block), _quietly(_camera, block))


def _quietly(read, source):
    try:
        return read(source)
    except Exception:  # EXIF is arbitrary bytes, and its reader raises whatever they lead it to
        return None


def _block(image: Image.Image) -> Image.Exif:
    if image.format == "PNG":  # its getexif() would decode the whole picture to look for a late block
        block = Image.Exif()
        if "exif" in image.info:
            block.load(image.info["exif"])
        return block
    return image.getexif()


def _orientation(block: Image.Exif) -> int:
    value = int(block.get(ExifTags.Base.Orientation, 1))
    return value if 1 <= value <= 8 else 1


def _position(block: Image.Exif) -> tuple[float, float] | None:
    gps = block.get_ifd(ExifTags.IFD.GPSInfo)
    lat = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], "NS")
    lon = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], "EW")
    return (lat, lon) if valid_coordinates(lat, lon) else None


def _degrees(parts, reference, signs: str) -> float:
    reference = reference.decode("ascii") if isinstance(reference, bytes) else reference
    reference = reference.strip("\0 ").upper()
    degrees, minutes, seconds = (float(part) for part in parts)
    if reference not in tuple(signs) or not (0 <= minutes <= 60 and 0 <= seconds <= 60) or degrees < 0:
        return math.nan
    value = degrees + minutes / 60 + seconds / 3600
    return value if reference == signs[0] else -value


def _taken_at(block: Image.Exif) -> datetime:
    details = block.get_ifd(ExifTags.IFD.Exif)
    text = details.get(ExifTags.Base.DateTimeOriginal) or block[ExifTags.Base.DateTime]
    return datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S")


def _camera(block: Image.Exif) -> str | None:
    make, model = (str(block.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    name = model if model.startswith(make) else f"{make} {model}"
    return name.encode("utf-8", "replace").decode()[:100] or None
