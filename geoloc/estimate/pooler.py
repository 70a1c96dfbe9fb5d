"""Several indexes searched deeply, and what they find gathered to places with the evidence for each (geoloc.candidates.pool)."""

from collections.abc import Callable, Sequence

import numpy as np

from geoloc.candidates.pool import Hits, Pool, Pooling, pool, region_votes
from geoloc.encoders.config import PARTS
from geoloc.estimate.finder import Finder
from geoloc.geo.regions import region_numbers
from geoloc.index.union import IndexUnion
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.evidence import evidence

LeaveOut = Callable[[np.ndarray, Candidates], np.ndarray]
"""Of an index's numbers of rows of all together, and of what it finds for photos: (n, d) bool, what is not to count."""


class Pooler:
    def __init__(self, finders: Sequence[Finder], pooling: Pooling) -> None:
        self._finders, self.pooling = tuple(finders), pooling
        self.index = IndexUnion([finder.index for finder in finders])
        self._region, names = region_numbers(self.index.place)
        self._regions = max(1, len(names))

    @property
    def kinds(self) -> list[str]:
        return [finder.index.info.kind for finder in self._finders]

    def search(self, vectors: np.ndarray, places: int, parts: tuple[str, ...] = PARTS) -> Candidates:
        """Places (n, p) that photos (n, d) may be, as lists name them, with their evidence."""
        if not len(vectors):
            return Candidates(*np.zeros((4, 0, places)), evidence=np.zeros((0, places, 0), np.float32))
        return self.places(self.hits(vectors, parts), places)

    def hits(
        self, vectors: np.ndarray, parts: tuple[str, ...] = PARTS, leave_out: LeaveOut | None = None
    ) -> list[Hits]:
        """A list of each index. Twice as deep where something is left out, and as deep as it is asked for afterwards."""
        depth = self.pooling.depth * (2 if leave_out else 1)
        lists = []
        for start, finder in zip(self.index.starts.tolist(), self._finders, strict=False):
            found = finder.search(vectors, min(depth, finder.index.info.rows), parts)
            rows = np.where(found.row >= 0, start + found.row, -1)
            out = (rows < 0) if leave_out is None else (rows < 0) | leave_out(rows, found)
            kept = np.argsort(out, axis=1, kind="stable")[:, : self.pooling.depth]
            rows, similarity, lat, lon = (
                np.take_along_axis(values, kept, axis=1)
                for values in (np.where(out, -1, rows), found.similarity, found.lat, found.lon)
            )
            region = np.where(rows >= 0, self._region[rows], -1)
            lists.append(Hits(finder.index.info.kind, rows, similarity, lat, lon, region))
        return lists

    def places(self, lists: Sequence[Hits], places: int) -> Candidates:
        votes = region_votes(lists, self.pooling, self._regions)
        found: Pool = pool(lists, votes, self.pooling, places)
        return Candidates(found.row, found.similarity, found.lat, found.lon, evidence=evidence(lists, found, votes))
