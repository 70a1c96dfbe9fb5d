"""From geotagged photos to rows of an index."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.encoders.alignment import PARTS, load_alignment, part_of
from geoloc.encoders.config import EncoderConfig, untrained
from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.text import place_sentence, text_encoder
from geoloc.geo.distance import valid_coordinates
from geoloc.geo.places import places
from geoloc.photos.load import pixel_array
from geoloc.schema import PLACE, REFERENCE


class Referencer:
    """With ``multimodal``, an aligned vector's parts in text space and in location space are those of the photo's words
    and coordinates (GeoRanker §3.1), where otherwise they are the photo's own (G3's released index)."""

    def __init__(self, config: EncoderConfig, device: str = "cpu", threads: int = 1, multimodal: bool = False) -> None:
        self._encoder = ImageEncoder(config, device, threads)
        self._multimodal = multimodal
        if multimodal:
            self._alignment = load_alignment(config.alignment).to(device)
            self._text = text_encoder(config, device)

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
        columns["author"] = pc.coalesce(batch["author"], batch["owner"])
        columns |= {"status": status, "lat": lat, "lon": lon, "place": _named(places().lookup(lat, lon), batch)}
        vectors = self._encoder.encode(pixels) if len(rows) else np.empty((0, self._encoder.dimension), np.float32)
        if self._multimodal and len(rows):
            vectors = self._with_words_and_place(vectors, columns["place"].take(pa.array(rows)), lat[rows], lon[rows])
        columns["vector"] = _in_rows(vectors, rows, batch.num_rows)
        columns["embed_s"] = np.full(batch.num_rows, (time.perf_counter() - start) / batch.num_rows, np.float32)
        return pa.table({name: columns[name] for name in REFERENCE.names}, schema=REFERENCE)

    def _with_words_and_place(
        self, vectors: np.ndarray, place: pa.StructArray, lat: np.ndarray, lon: np.ndarray
    ) -> np.ndarray:
        """Of a photo without words, the part in text space is 0."""
        sentences = [place_sentence(names) for names in place.to_pylist()]
        worded = np.flatnonzero([sentence is not None for sentence in sentences])
        texts = np.zeros((len(vectors), vectors.shape[1] // len(PARTS)), np.float32)
        if len(worded):
            texts[worded] = self._alignment.encode_texts(self._text.encode([sentences[row] for row in worded]))
        locations = self._alignment.encode_locations(lat, lon)
        return np.concatenate([part_of(vectors, "image"), texts, locations], axis=1)


class Featurer(Referencer):
    """What an alignment is trained on: vectors are the image tower's features as they come, not normalised."""

    def __init__(self, config: EncoderConfig, device: str = "cpu", threads: int = 1) -> None:
        self._encoder = ImageEncoder(untrained(config), device, threads, features=True)
        self._multimodal = False


def _in_rows(vectors: np.ndarray, rows: np.ndarray, total: int) -> pa.Array:
    lengths = np.zeros(total, np.int64)
    lengths[rows] = vectors.shape[1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()), mask=pa.array(lengths == 0))


def _named(looked_up: pa.StructArray, batch: pa.Table) -> pa.StructArray:
    """Places with the source's own names where it has them."""
    fields = {field.name: looked_up.field(field.name) for field in PLACE}
    for name in ("city", "region", "country"):
        fields[name] = pc.coalesce(batch[name].combine_chunks(), fields[name])
    return pa.StructArray.from_arrays([fields[field.name] for field in PLACE], fields=list(PLACE))
