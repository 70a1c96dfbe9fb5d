"""An index on a device, searched by vectors of photos."""

import numpy as np
import torch

from geoloc.encoders.alignment import PARTS, keep_parts, part_of
from geoloc.encoders.config import EncoderConfig
from geoloc.geocells.search import GeocellSearcher
from geoloc.index.search import ExactSearcher, GpuSearcher, ReRanked
from geoloc.index.store import Index
from geoloc.ranking.candidates import Candidates


class Finder:
    def __init__(self, index: Index, config: EncoderConfig, device: torch.device) -> None:
        """``config`` of the encoder whose vectors are to be searched by."""
        self.index, self._config = index, config
        ann = index.info.ann
        if index.info.kind == "cells":
            self._searcher = GeocellSearcher.open(index.path, device, config.similarity_scale)
        elif device.type == "cuda":
            self._searcher = GpuSearcher(index.vectors, list(range(torch.cuda.device_count())))
        elif ann:
            self._searcher = ReRanked.open(index.vectors, index.path / "ann.faiss", ann)
        else:
            self._searcher = ExactSearcher(index.vectors)

    def search(self, vectors: np.ndarray, k: int, parts: tuple[str, ...] = PARTS) -> Candidates:
        """The k most similar references of photos (m, d); of aligned vectors, by these parts alone. Of cells, the most probable."""
        queries = self._queries(vectors, parts)
        return self._at(*self._searcher.search(queries, k)) if len(queries) else self._none(k)

    def dissimilar(self, vectors: np.ndarray, k: int, parts: tuple[str, ...] = PARTS) -> Candidates:
        """The k least similar, least first: what G3's and GeoRanker's prompts show as places where the photo is not."""
        queries = self._queries(vectors, parts)
        if not len(queries):
            return self._none(k)
        if isinstance(self._searcher, GeocellSearcher):
            return self._at(*self._searcher.least(queries, k))
        similarity, rows = self._searcher.search(-queries, k)
        return self._at(-similarity, rows)

    def _queries(self, vectors: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
        kind = self.index.info.kind
        if self._config.alignment is None or kind == "cells":
            return vectors
        return part_of(vectors, "location") if kind == "gallery" else keep_parts(vectors, parts)

    def _at(self, similarity: np.ndarray, rows: np.ndarray) -> Candidates:
        """Of rows of the index."""
        extent_km = None if self.index.extent_km is None else self.index.extent_km[rows]
        return Candidates(rows, similarity, self.index.lat[rows], self.index.lon[rows], extent_km=extent_km)

    def _none(self, k: int) -> Candidates:
        return Candidates(*np.zeros((4, 0, k)))
