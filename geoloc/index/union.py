"""Several indexes as one: the rows of the first, then those of the second, and so on."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from geoloc.index.store import Index


class IndexUnion:
    """What rankers and results ask of an index, of several: places, names and pictures by row, not vectors."""

    def __init__(self, indexes: Sequence[Index]) -> None:
        self.indexes = tuple(indexes)
        self.starts = np.cumsum([0, *(index.info.rows for index in indexes)])
        """(indexes + 1,) the row that each begins with."""
        self.lat, self.lon = (np.concatenate([getattr(index, axis) for index in indexes]) for axis in ("lat", "lon"))
        self.uri, self.place = (
            pa.chunked_array([getattr(index, name) for index in indexes]) for name in ("uri", "place")
        )

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    def nearest(self, lat: float, lon: float, within_km: float) -> int | None:
        """The row of the reference with a picture that is nearest to coordinates, of the first index that has one so near."""
        for start, index in zip(self.starts.tolist(), self.indexes, strict=False):
            row = index.nearest(lat, lon, within_km) if index.info.kind == "photos" else None
            if row is not None:
                return start + row
        return None

    def thumbnail(self, row: int) -> bytes | None:
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.indexes[number].thumbnail(row - int(self.starts[number]))
