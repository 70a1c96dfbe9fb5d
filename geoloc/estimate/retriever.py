"""From pixels to candidates: an image encoder, and the indexes that are searched by its vectors."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from geoloc.candidates.pool import Pooling
from geoloc.encoders.alignment import PARTS
from geoloc.encoders.image import ImageEncoder
from geoloc.estimate.finder import Finder
from geoloc.estimate.pooler import Pooler
from geoloc.index.store import open_index
from geoloc.photos.load import pixel_array
from geoloc.photos.views import View
from geoloc.ranking.candidates import Candidates
from geoloc.storage import Folder


class Retriever:
    def __init__(
        self,
        encoder: ImageEncoder,
        indexes: Sequence[Folder],
        ten_crop: bool = False,
        pooling: Pooling | None = None,
        opened: dict[Folder, Finder] | None = None,
    ) -> None:
        """Searches on the encoder's device. Several indexes, or one with ``pooling``, give places that are pooled. ``opened``: what
        other retrievers of the encoder have opened, which is not opened again, and what this one opens."""
        self._encoder, self._ten_crop = encoder, ten_crop
        opened = {} if opened is None else opened
        for index in indexes:
            if index not in opened:
                opened[index] = Finder(open_index(index), encoder.config, encoder.device)
        finders = [opened[index] for index in indexes]
        self._first = finders[0]
        self._searcher = finders[0] if pooling is None else Pooler(finders, pooling)
        self.index = self._searcher.index
        """Whose rows candidates tell."""

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
        """The k most similar references of photos (m, d), or places that they are pooled to; of aligned vectors, by these parts
        alone. Of cells, the most probable."""
        return self._searcher.search(vectors, k, parts)

    def dissimilar(self, vectors: np.ndarray, k: int, parts: tuple[str, ...] = PARTS) -> Candidates:
        """The k least similar of the first index, least first: what G3's and GeoRanker's prompts show as places where the photo is
        not."""
        return self._first.dissimilar(vectors, k, parts)
