"""From geotagged photos to rows of an index."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.presets import Preset
from geoloc.geo.distance import valid_coordinates
from geoloc.geo.places import places
from geoloc.photos.load import pixel_array
from geoloc.schema import PLACE, REFERENCE


class Referencer:
    def __init__(self, preset: Preset, device: str = "cpu", threads: int = 1) -> None:
        self._encoder = ImageEncoder(preset, device, threads)

    def refer(self, batch: pa.Table) -> pa.Table:
        """A batch of LOADED to one of REFERENCE, row for row; ``status`` is ``indexed`` or ``failed``.

        The source's coordinates and place names come before the EXIF's and the nearest place's.
        """
        start = time.perf_counter()
        pixels, rows = pixel_array(batch, self._encoder.view.size)
        lat, lon, exif_lat, exif_lon = (batch[name].to_numpy() for name in ("lat", "lon", "exif_lat", "exif_lon"))
        given = valid_coordinates(lat, lon)
        lat, lon = np.where(given, lat, exif_lat), np.where(given, lon, exif_lon)
        status = np.array(batch["status"].to_pylist(), object)
        status[rows] = "indexed"
        columns = {
            name: batch[name] for name in ("id", "uri", "error_kind", "error", "thumbnail", "fetch_s", "decode_s")
        }
        columns |= {"status": status, "lat": lat, "lon": lon, "vector": self._vectors(pixels, rows, batch.num_rows)}
        columns["place"] = _named(places().lookup(lat, lon), batch)
        columns["embed_s"] = np.full(batch.num_rows, (time.perf_counter() - start) / batch.num_rows, np.float32)
        return pa.table({name: columns[name] for name in REFERENCE.names}, schema=REFERENCE)

    def _vectors(self, pixels: np.ndarray, rows: np.ndarray, total: int) -> pa.Array:
        dimension = self._encoder.dimension
        vectors = self._encoder.encode(pixels) if len(rows) else np.empty((0, dimension), np.float32)
        lengths = np.zeros(total, np.int64)
        lengths[rows] = dimension
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()), mask=pa.array(lengths == 0))


def _named(looked_up: pa.StructArray, batch: pa.Table) -> pa.StructArray:
    """Places with the source's own names where it has them."""
    fields = {field.name: looked_up.field(field.name) for field in PLACE}
    for name in ("city", "region", "country"):
        fields[name] = pc.coalesce(batch[name].combine_chunks(), fields[name])
    return pa.StructArray.from_arrays([fields[field.name] for field in PLACE], fields=list(PLACE))
