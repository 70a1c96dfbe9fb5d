"""Photos of the toy planet on disk: references with GPS, an archive like people's own, and the truth about it."""

import csv
import io
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pillow_heif
import tyro
from PIL import ExifTags, Image

from geoloc.toy.planet import Planet

GPS_SHARE = 0.15
"""Of the archive's photos that carry their place."""
BROKEN_SHARE = 0.03
_SUFFIXES = (".jpg",) * 14 + (".JPG", ".jpeg", ".png", ".webp", ".heic", ".tif")
_FOLDERS = ("", "2019", "2021/holiday in the hills", "2023/été #2", "100% best")

STAY = 6
"""Photos that the traveller takes in a city."""
PAUSE, TRAVEL = timedelta(minutes=17), timedelta(hours=31)
"""From photo to photo there, and from city to city."""


@dataclass(frozen=True)
class ToyOptions:
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder to write to."""
    references: int = 1000
    """Photos in references/, all with GPS."""
    photos: int = 300
    """Files in archive/: some have GPS, some are broken."""
    seed: int = 7
    """Of the planet: another seed, another world."""


def make_toy_planet(options: ToyOptions) -> int:
    planet = Planet(options.seed)
    write_references(options.output / "references", planet, options.references)
    write_archive(options.output / "archive", options.output / "truth.csv", planet, options.photos)
    print(f"{options.references} references and {options.photos} photos in {options.output}")
    return 0


def write_references(folder: Path, planet: Planet, count: int, seed: int = 1) -> None:
    """``count`` JPEGs with GPS EXIF, spread evenly over the cities."""
    for number in range(count):
        random = np.random.default_rng([seed, number])
        city = number % len(planet.cities)
        lat, lon = planet.place(city, random)
        image = planet.photo(city, lat, lon, random)
        path = folder / planet.cities[city].name / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=88, exif=_exif(lat, lon, number).tobytes())


def write_archive(folder: Path, truth: Path, planet: Planet, count: int, seed: int = 2) -> None:
    """``count`` files in several formats, some with GPS and some broken, and ``truth``, a CSV of uri, lat, lon. A traveller took
    them, city after city."""
    rows = []
    for number in range(count):
        random = np.random.default_rng([seed, number])
        city = int(np.random.default_rng([seed, 0, number // STAY]).integers(len(planet.cities)))
        lat, lon = planet.place(city, random)
        path = folder / _FOLDERS[number // STAY % len(_FOLDERS)] / f"IMG_{number:06d}{random.choice(_SUFFIXES)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        broken = random.uniform() < BROKEN_SHARE
        located = random.uniform() < GPS_SHARE and not broken
        data = _encode(planet.photo(city, lat, lon, random), path.suffix.lower(), lat, lon, number, located)
        path.write_bytes(_break(data, random) if broken else data)
        rows.append((str(path.resolve()), round(lat, 6), round(lon, 6)))
    with truth.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("uri", "lat", "lon"), *rows])


def _encode(image: Image.Image, suffix: str, lat: float, lon: float, number: int, located: bool) -> bytes:
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".heic": "HEIF", ".tif": "TIFF"}[suffix]
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    exif = _exif(lat, lon, number) if located else _exif(None, None, number)
    image.save(buffer, kind, exif=exif.tobytes(), **({"quality": 88} if kind in ("JPEG", "WEBP", "HEIF") else {}))
    return buffer.getvalue()


def _break(data: bytes, random: np.random.Generator) -> bytes:
    return (b"", data[: len(data) // 2], b"<html><body>404 Not Found</body></html>")[int(random.integers(3))]


def _exif(lat: float | None, lon: float | None, number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Toy", "Toy Camera 1"
    stay, photo = divmod(number, STAY)
    taken = datetime(2023, 5, 1, 8) + stay * TRAVEL + photo * PAUSE
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
    if lat is not None:
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N" if lat >= 0 else "S", _sexagesimal(lat)
        gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E" if lon >= 0 else "W", _sexagesimal(lon)
    return exif


def _sexagesimal(value: float) -> tuple[float, float, float]:
    minutes, seconds = divmod(abs(value) * 3600, 60)
    degrees, minutes = divmod(minutes, 60)
    return degrees, minutes, round(seconds, 4)
