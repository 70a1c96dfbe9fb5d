"""Fetch and decode, photo by photo, into the batches that models take."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.errors import PhotoError
from geoloc.geo.distance import valid_coordinates
from geoloc.photos.crumbs import Crumbs
from geoloc.photos.decode import PhotoFile
from geoloc.photos.fetch import Fetched, Fetcher, FetchOptions
from geoloc.photos.metadata import Metadata, Sidecar
from geoloc.photos.views import AreaView, View, packed, thumbnail, thumbnail_scale
from geoloc.schema import LOADED

BATCH_BYTES = 256 << 20
"""Of pixels, that a batch holds at most; a photo more makes it larger."""


@dataclass(frozen=True)
class LoadOptions:
    view: View
    """What the encoder looks at."""
    fetch: FetchOptions = field(default_factory=FetchOptions)
    max_pixels: int = 200_000_000
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


class PhotoLoader:
    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._fetcher = Fetcher(options.fetch)

    def load(self, photos: pa.Table, crumbs: Path, batch_rows: int = 64) -> Iterator[pa.Table]:
        """Batches of LOADED for rows of the manifest, in their order; one row a photo, whatever is wrong with it.

        ``crumbs`` names a file of this stretch of photos on this machine: should decoding one of them kill the
        process, its successors find out there, and give that photo up.
        """
        rows, size = [], 0
        with Crumbs(crumbs) as trail:
            for photo, fetched in self._fetcher.stream(photos.to_pylist()):
                trail.at(photo["id"])
                rows.append(self._row(photo, fetched, photo["id"] in trail.deadly))
                size += _bytes(rows[-1])
                if len(rows) == batch_rows or size >= BATCH_BYTES:
                    yield _table(rows)
                    rows, size = [], 0
        if rows:
            yield _table(rows)

    def _row(self, photo: dict, fetched: Fetched, deadly: bool) -> dict:
        row = {name: photo[name] for name in ("id", "uri", "lat", "lon", "city", "region", "country")}
        row["fetch_s"] = fetched.seconds
        data = PhotoError("crashed", "decoding it killed the process, more than once") if deadly else fetched.data
        return row | _seen(data, row, self._options, fetched.sidecars)


def load_one(data: bytes, options: LoadOptions) -> pa.Table:
    """A batch of LOADED for one photo that somebody has sent."""
    nowhere = dict.fromkeys(("lat", "lon", "city", "region", "country"))
    row = {"id": 0, "uri": "", "fetch_s": 0.0} | nowhere
    return _table([row | _seen(data, row, options)])


def _seen(data: bytes | PhotoError, photo: dict, options: LoadOptions, sidecars: Sequence[Sidecar] = ()) -> dict:
    """The columns that come from looking at a photo, or why it cannot be looked at."""
    start, row = time.perf_counter(), {}
    try:
        if isinstance(data, PhotoError):
            raise data
        _look(data, photo, sidecars, options, row)
    except PhotoError as error:
        row |= {"status": "failed", "error_kind": error.kind, "error": error.message}
    return row | {"decode_s": time.perf_counter() - start}


def _look(data: bytes, place: dict, sidecars: Sequence[Sidecar], options: LoadOptions, row: dict) -> None:
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
        "exif_lat": position.lat,
        "exif_lon": position.lon,
        "taken_at": taken and taken.at,
        "taken_utc_offset": taken and taken.utc_offset_minutes,
        "taken_from": taken and taken.source,
        "camera": known.camera,
    }


def _bytes(row: dict) -> int:
    """Of the pixels that it holds."""
    picture = row.get("picture") or {"pixels": b""}
    return sum(len(pixels or b"") for pixels in (row.get("pixels"), picture["pixels"], row.get("thumbnail")))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, LOADED)


def pixel_array(batch: pa.Table, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The photos of a batch that still want an answer: their views (n, size, size, 3) uint8, read-only and not copied,
    n times as many where a photo has several, and their row numbers (n,)."""
    column = batch["pixels"].combine_chunks()
    present = np.flatnonzero(np.asarray(column.is_valid()))
    if not len(present):
        return np.empty((0, size, size, 3), np.uint8), present
    offsets = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, column.offset * 8)
    data = np.frombuffer(column.buffers()[2], np.uint8, offsets[-1] - offsets[0], offsets[0])
    return data.reshape(-1, size, size, 3), present
