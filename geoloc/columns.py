"""Which columns of anybody's table are what, by the names that the field's data sets and tools give them."""

import re
from collections.abc import Sequence
from typing import Literal

import pyarrow.csv

from geoloc.storage import Folder

Role = Literal["predictions", "truth"]

IDS = ["uri", "imgid", "id", "imageid", "imgfile", "image", "filename", "file", "path", "photoid", "panoid", "name"]
"""Names of id columns, without case and punctuation."""
FILES = [
    "uri",
    "sourcefile",
    "path",
    "filepath",
    "imgfile",
    "image",
    "imagepath",
    "filename",
    "file",
    "imgid",
    "photo",
    "key",
    "name",
]
"""Names of columns that say where a photo is; likewise."""
LISTS = ("candidategpslis", "refgps")
"""Lists of candidates, best first, in GeoRanker's and G3's files, whose LAT and LON are the truth."""
_AXES = {"lat": ("lat", "latitude", "gpslatitude"), "lon": ("lon", "lng", "long", "longitude", "gpslongitude")}
_QUALIFIERS = {
    "predictions": ("predicted", "pred", "prediction", "predict", "estimated"),
    "truth": ("true", "truth", "gt", "groundtruth"),
}
_PAIRS = {"predictions": ("predictedgps", "predgps", "gps"), "truth": ("gps",)}
_LIKE_COORDINATES = re.compile(r"lat|lon|lng|gps|coord|geom|position|^x$|^y$")


def plain(name: str) -> str:
    """Without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def position_columns(names: Sequence[str], role: Role) -> tuple[str, ...] | None:
    """The columns of latitude and longitude, or the one that holds both, or lists of both; None where there are none."""
    known = {plain(name): name for name in reversed(names)}
    for qualifier in (*_QUALIFIERS[role], ""):
        listed = [known[name] for name in LISTS if name in known]
        if not qualifier and role == "predictions" and listed:
            return (listed[0],)
        found = []
        for axis in ("lat", "lon"):
            wanted = [f"{a}{b}" for name in _AXES[axis] for a, b in ((qualifier, name), (name, qualifier))]
            found.append(next((known[name] for name in wanted if name in known), None))
        if all(found):
            return found[0], found[1]
    return next(((known[name],) for name in _PAIRS[role] if name in known), None)


def like_coordinates(names: Sequence[str]) -> list[str]:
    """Those that may hold coordinates, by their names."""
    return [name for name in names if _LIKE_COORDINATES.search(plain(name))]


def csv_format(folder: Folder, path: str) -> pyarrow.csv.ParseOptions:
    """How a file is separated, by its first line."""
    with folder.filesystem.open(path, "rb") as file:
        return pyarrow.csv.ParseOptions(delimiter=csv_delimiter(file.readline()))


def csv_delimiter(line: bytes) -> str:
    """Comma, tab or semicolon, whichever a table's first line has most of.

    >>> csv_delimiter(b"uri;lat;lon")
    ';'
    """
    return max(",\t;", key=line.decode("utf-8", "replace").count)
