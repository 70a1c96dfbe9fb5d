"""Choosing by coordinates: does the place look like the photo to a location encoder?"""

import numpy as np

from geoloc.encoders.location import LocationEncoder
from geoloc.ranking.candidates import Candidates


class Verification:
    """The candidate whose encoded coordinates lie nearest to the image in location space (G3 §3.4, GeoCLIP)."""

    name = "verification"

    def __init__(self, encoder: LocationEncoder, scale: float) -> None:
        self._encoder = encoder
        self.scale = scale

    def scores(self, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
        known = candidates.row >= 0
        points = np.stack([candidates.lat[known], candidates.lon[known]], axis=1)
        points, inverse = np.unique(points, axis=0, return_inverse=True)
        vectors = self._encoder.encode(points[:, 0], points[:, 1])
        scores = np.full(known.shape, -np.inf, np.float32)
        photo = np.nonzero(known)[0]
        scores[known] = np.einsum("id,id->i", vectors[inverse.reshape(-1)], photos[photo])
        return scores
