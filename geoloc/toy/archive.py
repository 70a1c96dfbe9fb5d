"""Photos of the toy planet on disk: references with GPS, an archive like people's own, and the truth about it."""

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import gpxpy.gpx
import numpy as np
import pillow_heif
import tyro
from PIL import ExifTags, Image

from geoloc.toy.planet import Planet
from geoloc.toy.trips import Device, Household, household

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
    household: int = 0
    """Photos in household/: a family's, who travel, with telephones and cameras whose clocks differ, and tracks/ of one of them."""
    seed: int = 7
    """Of the planet: another seed, another world."""


def make_toy_planet(options: ToyOptions) -> int:
    planet = Planet(options.seed)
    write_references(options.output / "references", planet, options.references)
    write_archive(options.output / "archive", options.output / "truth.csv", planet, options.photos)
    if options.household:
        write_household(options.output, planet, options.household)
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


PHONE_GPS_SHARE = 0.3
SCAN_SHARE, SUBJECT_SHARE = 0.03, 0.05
"""Of a household's photos: prints that were scanned, without time, and those that lie in a folder by subject."""
_MODELS = {
    Device.PHONE: ("Toy", "Toy Phone 9", None),
    Device.CAMERA: ("Toy", "Toy Camera 1", "1001"),
    Device.COMPANION: ("Toy", "Toy Compact 3", "3003"),
    Device.PARTNER: ("Toy", "Toy Camera 4", "4004"),
}


def write_household(folder: Path, planet: Planet, count: int, seed: int = 3) -> Household:
    """``count`` JPEGs of a household in household/, by day, GPX of its traveller's ways in tracks/, and household.csv, the truth: uri,
    lat, lon and the time in UTC."""
    random = np.random.default_rng(seed)
    cities = np.array([(city.lat, city.lon) for city in planet.cities])
    home = int(random.integers(len(cities)))
    near = np.argsort(np.square(cities - cities[home]).sum(1))[:8]
    family = household(random, cities[near], trips=3)
    shots, rows = family.shots, []
    for number in np.sort(np.argsort(shots.at)[:count]).tolist():
        device, place = Device(int(shots.device[number])), shots.place[number]
        city = int(np.square(cities - place).sum(1).argmin())
        shown = datetime(1970, 1, 1) + timedelta(minutes=float(shots.clock[number]))
        scanned, by_subject = random.random() < SCAN_SHARE, random.random() < SUBJECT_SHARE
        where = "churches" if by_subject else "scans" if scanned else shown.strftime("%Y-%m-%d")
        name = "scan_" if scanned else _MODELS[device][1].split()[1][:4].upper()
        path = folder / "household" / where / f"{name}{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if not scanned:
            gps = shots.gps[number] if random.random() < PHONE_GPS_SHARE else (None, None)
            exif = _taken(
                _MODELS[device], shown, *(None if value is None or np.isnan(value) else value for value in gps)
            )
        planet.photo(city, *place, random).save(path, quality=88, exif=exif.tobytes())
        at = datetime(1970, 1, 1) + timedelta(minutes=float(shots.at[number]))
        rows.append((str(path.resolve()), *place.round(6).tolist(), at.isoformat(timespec="seconds")))
    with (folder / "household.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("uri", "lat", "lon", "utc"), *rows])
    _write_tracks(folder / "tracks", family)
    return family


def _write_tracks(folder: Path, family: Household) -> None:
    """A log of each of the first visits away, a point every four minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    away = [visit for visit in family.visits if visit.away]
    track = gpxpy.gpx.GPXTrackSegment()
    for visit in away[: len(away) // 2]:
        for minutes in np.arange(visit.start, visit.stop, 4.0):
            at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=float(minutes))
            track.points.append(gpxpy.gpx.GPXTrackPoint(visit.lat, visit.lon, time=at))
    gpx = gpxpy.gpx.GPX()
    gpx.tracks.append(gpxpy.gpx.GPXTrack())
    gpx.tracks[0].segments.append(track)
    (folder / "walks.gpx").write_text(gpx.to_xml())


def _taken(model: tuple, shown: datetime, lat: float | None, lon: float | None) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model], serial = model
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = shown.strftime("%Y:%m:%d %H:%M:%S")
    if serial:
        details[ExifTags.Base.BodySerialNumber] = serial
    else:
        details[ExifTags.Base.OffsetTimeOriginal] = "+00:00"
    if lat is not None:
        _add_gps(exif, lat, lon)
    return exif


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
        _add_gps(exif, lat, lon)
    return exif


def _add_gps(exif: Image.Exif, lat: float, lon: float) -> None:
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N" if lat >= 0 else "S", _sexagesimal(lat)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E" if lon >= 0 else "W", _sexagesimal(lon)


def _sexagesimal(value: float) -> tuple[float, float, float]:
    minutes, seconds = divmod(abs(value) * 3600, 60)
    degrees, minutes = divmod(minutes, 60)
    return degrees, minutes, round(seconds, 4)
