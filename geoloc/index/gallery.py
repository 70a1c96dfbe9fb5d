"""A gallery: an index of encoded coordinates, with no photos behind them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.encoders.alignment import load_alignment
from geoloc.encoders.config import EncoderConfig
from geoloc.encoders.geoclip import geoclip_gallery
from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.location import LocationEncoder
from geoloc.geo.places import places
from geoloc.index.build import write_index
from geoloc.index.store import GALLERY_ENCODER, IndexInfo
from geoloc.schema import REFERENCE

VECTOR = REFERENCE.field("vector").type


def write_gallery(path: Path, config: EncoderConfig, batch: int = 16_384) -> IndexInfo:
    """GeoCLIP's gallery as an index: 94,123 coordinates as location vectors, no photos at all.

    They are GeoCLIP's own (512-d), or those of the encoder's alignment, as wide as its parts.
    """
    lat, lon = geoclip_gallery()
    encode, name = LocationEncoder.geoclip().encode, GALLERY_ENCODER
    if config.alignment is not None:
        encode, name = load_alignment(config.alignment).encode_locations, ImageEncoder(config).fingerprint
    width = encode(lat[:1], lon[:1]).shape[1]
    info = IndexInfo("gallery", name, config.name, config.model, len(lat), width)
    parts = (slice(start, start + batch) for start in range(0, len(lat), batch))
    return write_index(path, info, (_rows(encode(lat[part], lon[part]), lat[part], lon[part]) for part in parts))


def _rows(vectors: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> pa.Table:
    columns = {"lat": lat, "lon": lon, "place": places().lookup(lat, lon)}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]).cast(VECTOR)
    nulls = {field.name: pa.nulls(len(lat), field.type) for field in REFERENCE if field.name not in columns}
    return pa.table(nulls | columns).select(REFERENCE.names).cast(REFERENCE)
