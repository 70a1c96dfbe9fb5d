"""A gallery: an index of encoded coordinates, with no photos behind them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.encoders.geoclip import geoclip_gallery
from geoloc.encoders.location import LocationEncoder
from geoloc.encoders.presets import Preset
from geoloc.geo.places import places
from geoloc.index.build import write_index
from geoloc.index.store import GALLERY_ENCODER, IndexInfo
from geoloc.schema import REFERENCE

VECTOR = REFERENCE.field("vector").type


def write_gallery(path: Path, preset: Preset, batch: int = 16_384) -> IndexInfo:
    """GeoCLIP's gallery as an index: 94,123 coordinates as 512-d location vectors, no photos at all."""
    lat, lon = geoclip_gallery()
    encoder = LocationEncoder.geoclip()
    info = IndexInfo("gallery", GALLERY_ENCODER, preset.name, preset.model, len(lat), 512)
    parts = (slice(start, start + batch) for start in range(0, len(lat), batch))
    return write_index(path, info, (_rows(encoder, lat[part], lon[part]) for part in parts))


def _rows(encoder: LocationEncoder, lat: np.ndarray, lon: np.ndarray) -> pa.Table:
    vectors = encoder.encode(lat, lon)
    columns = {"lat": lat, "lon": lon, "place": places().lookup(lat, lon)}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]).cast(VECTOR)
    nulls = {field.name: pa.nulls(len(lat), field.type) for field in REFERENCE if field.name not in columns}
    return pa.table(nulls | columns).select(REFERENCE.names).cast(REFERENCE)
