"""From pixels to candidates: an image encoder, and an index that is searched by its vectors."""

import dataclasses

import numpy as np
import pyarrow as pa
import torch

from geoloc.encoders.alignment import PARTS, keep_parts, part_of
from geoloc.encoders.image import ImageEncoder
from geoloc.geocells.search import GeocellSearcher
from geoloc.index.search import ExactSearcher, GpuSearcher, ReRanked
from geoloc.index.store import Index, local_copy
from geoloc.photos.load import pixel_array
from geoloc.photos.views import View
from geoloc.ranking.candidates import Candidates
from geoloc.storage import Folder


class Retriever:
    def __init__(self, encoder: ImageEncoder, index: Folder, ten_crop: bool = False) -> None:
        """Searches on the encoder's device."""
        self._encoder, self._ten_crop = encoder, ten_crop
        self.index = Index(local_copy(index))
        ann = self.index.info.ann
        if self.index.info.kind == "cells":
            scale = encoder.config.similarity_scale
            self._searcher = GeocellSearcher.open(self.index.path, encoder.device, scale)
        elif encoder.device.type == "cuda":
            self._searcher = GpuSearcher(self.index.vectors, list(range(torch.cuda.device_count())))
        elif ann:
            self._searcher = ReRanked.open(self.index.vectors, self.index.path / "ann.faiss", ann)
        else:
            self._searcher = ExactSearcher(self.index.vectors)

    @property
    def encoder(self) -> ImageEncoder:
        return self._encoder

    @property
    def view(self) -> View:
        """What of a photo is to be loaded."""
        return dataclasses.replace(self._encoder.view, ten_crop=self._ten_crop)

    def encode(self, batch: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The vectors (m, d) of a batch of LOADED's photos that want an answer, and their row numbers (m,).

        With ten crops, the mean of their unit vectors: its inner products are the means of theirs, which is how
        GeoCLIP averages ten crops (logits, not coordinates).
        """
        pixels, rows = pixel_array(batch, self._encoder.view.size)
        if not len(rows):
            return np.zeros((0, self._encoder.dimension), np.float32), rows
        if not self._ten_crop:
            return self._encoder.encode(pixels), rows
        vectors = self._encoder.encode(pixels) + self._encoder.encode(np.ascontiguousarray(pixels[:, :, ::-1]))
        crops = len(pixels) // len(rows)
        return vectors.reshape(len(rows), crops, -1).sum(axis=1) / (2 * crops), rows

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
        if self._encoder.config.alignment is None or kind == "cells":
            return vectors
        return part_of(vectors, "location") if kind == "gallery" else keep_parts(vectors, parts)

    def _at(self, similarity: np.ndarray, rows: np.ndarray) -> Candidates:
        """Of rows of the index."""
        extent_km = None if self.index.extent_km is None else self.index.extent_km[rows]
        return Candidates(rows, similarity, self.index.lat[rows], self.index.lon[rows], extent_km=extent_km)

    def _none(self, k: int) -> Candidates:
        return Candidates(*np.zeros((4, 0, k)))
