"""Choosing by coordinates: does the place look like the photo to a location encoder?"""

from collections.abc import Callable

import numpy as np

from geoloc.ranking.candidates import Candidates

Encode = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Latitudes and longitudes (n,) to unit vectors (n, d)."""


class Verification:
    """The candidate whose encoded coordinates lie nearest to the image in location space (G3 §3.4, GeoCLIP)."""

    name = "verification"

    def __init__(
        self, encode: Encode, scale: float, of_photos: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        """``of_photos`` takes from the photos' vectors what lies in location space (default: all of them)."""
        self._encode = encode
        self._of_photos = of_photos
        self.scale = scale

    def scores(self, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
        known = candidates.row >= 0
        points = np.stack([candidates.lat[known], candidates.lon[known]], axis=1)
        points, inverse = np.unique(points, axis=0, return_inverse=True)
        vectors = self._encode(points[:, 0], points[:, 1])
        photos = self._of_photos(photos) if self._of_photos else photos
        scores = np.full(known.shape, -np.inf, np.float32)
        photo = np.nonzero(known)[0]
        scores[known] = np.einsum("id,id->i", vectors[inverse.reshape(-1)], photos[photo])
        return scores
