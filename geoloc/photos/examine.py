"""All that is read from one photo: its metadata, and the pixels that models and people look at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geoloc.errors import PhotoError
from geoloc.geo.distance import valid_coordinates
from geoloc.photos.decode import PhotoFile
from geoloc.photos.metadata import Metadata, Sidecar
from geoloc.photos.views import AreaView, View, thumbnail, thumbnail_scale
from geoloc.schema import packed


@dataclass(frozen=True)
class DecodeOptions:
    view: View
    """What the encoder looks at."""
    max_pixels: int = 200_000_000
    max_seconds: float = 60
    """Of a processor's time, that a photo may take."""
    exact: bool = False
    """Decode JPEGs whole, however small the view."""
    keep_located: bool = False
    """Leave a photo that carries its position alone: it is ``kept``, and its pixels are not decoded."""
    need_position: bool = False
    """A photo without coordinates, from its source or its own metadata, fails as ``no_position``."""
    picture_view: AreaView | None = None
    """What a ranker looks at; a photo that it cannot look at has no ``picture``."""
    thumbnail_px: int | None = None
    """Longest side of the JPEG made on the way, 0 for the photo's own; None for no such JPEG."""


NOWHERE = {"uri": "", "lat": None, "lon": None}
"""What a source tells of a photo that comes alone."""


def examined(data: bytes, place: dict, sidecars: Sequence[Sidecar], options: DecodeOptions) -> dict:
    """The columns of LOADED that come from looking at a photo, as far as it could be looked at.

    ``place`` has what the source tells of it: ``uri``, ``lat``, ``lon``.
    """
    row: dict = {}
    try:
        _examine(data, place, sidecars, options, row)
    except PhotoError as error:
        row |= error.columns()
    return row


def _examine(data: bytes, place: dict, sidecars: Sequence[Sidecar], options: DecodeOptions, row: dict) -> None:
    """Fills ``row`` as far as it gets. Raises PhotoError."""
    photo = PhotoFile(data, options.max_pixels)
    known = photo.carried.metadata(place["uri"].rsplit("/", 1)[-1], sidecars)
    row |= {"width": photo.width, "height": photo.height} | _columns(known)
    if options.keep_located and known.position.state == "read":
        row["status"] = "kept"
        return
    placed = known.position.state == "read" or valid_coordinates(_nan(place["lat"]), _nan(place["lon"]))
    if options.need_position and not placed:
        problem = f" ({known.position.problem})" if known.position.problem else ""
        raise PhotoError(
            "no_position", f"no valid coordinates, neither in the source's table nor with the photo{problem}"
        )
    scale = options.view.scale(photo.width, photo.height)
    if options.thumbnail_px is not None:
        scale = max(scale, thumbnail_scale(photo.width, photo.height, options.thumbnail_px))
    picture_view = options.picture_view
    if picture_view and not picture_view.takes(photo.width, photo.height):
        picture_view = None
    if picture_view:
        scale = max(scale, picture_view.scale(photo.width, photo.height))
    picture = photo.picture(scale, options.exact)
    row["pixels"] = options.view.pixels(picture)
    if picture_view:
        row["picture"] = packed(picture_view.of(picture))
    if options.thumbnail_px is not None:
        row["thumbnail"] = thumbnail(picture, options.thumbnail_px)


def _columns(known: Metadata) -> dict:
    position, taken = known.position, known.taken
    return {
        "gps": position.state,
        "gps_problem": position.problem,
        "exif_from": position.source if position.state == "read" else None,
        "gps_error_m": position.error_m,
        "exif_lat": position.lat,
        "exif_lon": position.lon,
        "taken_at": taken and taken.at,
        "taken_utc_offset": taken and taken.utc_offset_minutes,
        "taken_from": taken and taken.source,
        "camera": known.camera,
        "camera_serial": known.camera_serial,
        "owner": known.owner,
    }


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
