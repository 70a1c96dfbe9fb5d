"""Questions for a light ranker, from an index alone: each of its photos is asked about as if it were not there."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.candidates.pool import Hits
from geoloc.estimate.pooler import Pooler
from geoloc.geo.distance import haversine_km
from geoloc.index.store import Index
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.options import TWIN_KM

TWIN_COSINE = 0.95
"""References within a kilometre that are more alike are the photo again."""


class Questioner:
    """What indexes find for photos of one, without them, without photos by the same photographer, and without twins: a ranker
    that learns with those learns to trust copies."""

    def __init__(self, pooler: Pooler, photos: Index, rows: np.ndarray, first_row: int | None) -> None:
        """``rows`` (n,) of ``photos`` are asked about; ``first_row``: where their index begins among the pooler's, if it is one."""
        self._pooler = pooler
        self.vectors = np.ascontiguousarray(photos.vectors[rows])
        self.lat, self.lon = photos.lat[rows], photos.lon[rows]
        author = photos.author.take(pa.array(rows))
        names = pc.unique(author.drop_null())
        self._author = _coded(author, names)
        self._authors = np.concatenate([_coded(index.author, names) for index in pooler.index.indexes])
        self._own = np.full(len(rows), -1) if first_row is None else first_row + rows

    def __len__(self) -> int:
        return len(self.lat)

    @property
    def group(self) -> np.ndarray:
        """(n,) equal for photos of one photographer; a photo by nobody known is by itself."""
        return np.where(self._author >= 0, self._author, self._author.max(initial=0) + 1 + np.arange(len(self)))

    @property
    def authors(self) -> int:
        """That are known."""
        return len(np.unique(self._author[self._author >= 0]))

    def hits(self, photos: slice) -> list[Hits]:
        lat, lon, author, own = self.lat[photos], self.lon[photos], self._author[photos], self._own[photos]
        vectors = self.vectors[photos]
        square = np.einsum("nd,nd->n", vectors, vectors)[:, None]

        def leave_out(rows: np.ndarray, found: Candidates) -> np.ndarray:
            same = (self._authors[rows] == author[:, None]) & (author >= 0)[:, None]
            alike = found.similarity >= TWIN_COSINE * square
            near = haversine_km(lat[:, None], lon[:, None], found.lat, found.lon) <= TWIN_KM
            return same | (rows == own[:, None]) | (near & alike)

        return self._pooler.hits(vectors, leave_out=leave_out)


def _coded(author: pa.Array, names: pa.Array) -> np.ndarray:
    """(n,) number of the name; -1 for none of them."""
    return pc.index_in(author, names).fill_null(-1).to_numpy().astype(np.int64)
