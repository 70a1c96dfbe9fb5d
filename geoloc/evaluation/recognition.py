"""Which columns of anybody's table are photos' ids and positions."""

from dataclasses import dataclass

from geoloc.columns import IDS, Role, plain, position_columns
from geoloc.errors import UsageError


@dataclass(frozen=True)
class Columns:
    """Names of columns that are not to be guessed."""

    id: str | None = None
    """Column with the photo's id or file name (default: recognised, e.g. id, uri, IMG_ID)."""
    lat: str | None = None
    """Column with the latitude, degrees (default: recognised, e.g. lat, LAT, latitude, predicted_lat)."""
    lon: str | None = None
    """Column with the longitude, degrees (default: recognised, e.g. lon, LON, lng, longitude, predicted_lon)."""

    def check(self, what: str) -> None:
        """Raises UsageError; ``what`` is the option and the file they are for."""
        if bool(self.lat) != bool(self.lon):
            raise UsageError(f"{what}: a column was named for one of latitude and longitude; name both")

    def position(self, names: list[str], role: Role) -> tuple[str, ...] | None:
        """The columns of coordinates, as they were named, or as they are recognised; None where there are none."""
        return (self.lat, self.lon) if self.lat and self.lon else position_columns(names, role)


@dataclass(frozen=True)
class Recognised:
    ids: list[str]
    """Best first."""
    position: tuple[str, ...]
    """Latitude and longitude, or one column of both."""
    author: str | None


def recognise_columns(names: list[str], role: Role, columns: Columns, what: str) -> Recognised:
    """Raises UsageError, naming what the table has, where a column is not there or cannot be told; ``what`` as above.

    >>> recognise_columns(["IMG_ID", "AUTHOR", "LAT", "LON"], "truth", Columns(), "TRUTH im2gps3k.csv")
    Recognised(ids=['IMG_ID'], position=('LAT', 'LON'), author='AUTHOR')
    """
    ids = [columns.id] if columns.id else _id_columns(names)
    position = columns.position(names, role)
    missing = [name for name in (columns.id, columns.lat, columns.lon) if name and name not in names]
    if missing or not ids or position is None:
        lacking = f"that looks like {'an id' if not ids else 'coordinates'}"
        lacking = f"`{missing[0]}`" if missing else lacking
        raise UsageError(
            f"{what}: no column {lacking} (it has {', '.join(names)}); name the columns it has with options"
        )
    return Recognised(ids, position, next((name for name in names if plain(name) == "author"), None))


def _id_columns(names: list[str]) -> list[str]:
    """Best first. A run's ``id`` is its own row number, and says nothing beside ``uri``."""
    found = sorted((name for name in names if plain(name) in IDS), key=lambda name: IDS.index(plain(name)))
    return found[:1] if found and found[0] == "uri" and "status" in names else found
