"""Fetch and decode, photo by photo, into the batches that models take."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from geoloc.errors import PhotoError
from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import NOWHERE, DecodeOptions
from geoloc.photos.fetch import Fetched, Fetcher, FetchOptions
from geoloc.photos.metadata import Sidecar
from geoloc.schema import CARRIED, LOADED

BATCH_BYTES = 256 << 20
"""Of pixels, that a batch holds at most; a photo more makes it larger."""


@dataclass(frozen=True)
class LoadOptions:
    decode: DecodeOptions
    fetch: FetchOptions = field(default_factory=FetchOptions)


class PhotoLoader:
    def __init__(self, options: LoadOptions) -> None:
        self._fetcher = Fetcher(options.fetch)
        self._decoder = Decoder(options.decode)

    def load(self, photos: pa.Table, batch_rows: int = 64) -> Iterator[pa.Table]:
        """Batches of LOADED for rows of the manifest, in their order; one row a photo, whatever is wrong with it."""
        rows, size = [], 0
        for photo, fetched in self._fetcher.stream(photos.to_pylist()):
            rows.append(self._row(photo, fetched))
            size += _bytes(rows[-1])
            if len(rows) == batch_rows or size >= BATCH_BYTES:
                yield _table(rows)
                rows, size = [], 0
        if rows:
            yield _table(rows)

    def _row(self, photo: dict, fetched: Fetched) -> dict:
        row = {name: photo[name] for name in CARRIED}
        row["fetch_s"] = fetched.seconds
        if isinstance(fetched.data, PhotoError):
            return row | {"decode_s": 0.0} | fetched.data.columns()
        return row | _timed(self._decoder, fetched.data, row, fetched.sidecars)


def load_one(data: bytes | bytearray, decoder: Decoder, max_seconds: float | None = None) -> pa.Table:
    """A batch of LOADED for one photo that somebody has sent."""
    row = NOWHERE | {"id": 0, "fetch_s": 0.0}
    return _table([row | _timed(decoder, data, row, max_seconds=max_seconds)])


def _timed(
    decoder: Decoder,
    data: bytes | bytearray,
    place: dict,
    sidecars: Sequence[Sidecar] = (),
    max_seconds: float | None = None,
) -> dict:
    start = time.perf_counter()
    row = decoder.examine(data, place, sidecars, max_seconds)
    return row | {"decode_s": time.perf_counter() - start}


def _bytes(row: dict) -> int:
    """Of the pixels that it holds."""
    picture = row.get("picture") or {"pixels": b""}
    return sum(len(pixels or b"") for pixels in (row.get("pixels"), picture["pixels"], row.get("thumbnail")))


def _table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, LOADED)


def pixel_array(batch: pa.Table, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The photos of a batch that still want an answer: their views (n, size, size, 3) uint8, read-only and not copied,
    n times as many where a photo has several, and their row numbers (n,).

    >>> pixels, rows = pixel_array(pa.table({"pixels": pa.array([None, bytes(12)], pa.large_binary())}), size=2)
    >>> pixels.shape, rows
    ((1, 2, 2, 3), array([1]))
    """
    column = batch["pixels"].combine_chunks()
    present = np.flatnonzero(np.asarray(column.is_valid()))
    if not len(present):
        return np.empty((0, size, size, 3), np.uint8), present
    offsets = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, column.offset * 8)
    data = np.frombuffer(column.buffers()[2], np.uint8, offsets[-1] - offsets[0], offsets[0])
    return data.reshape(-1, size, size, 3), present
