"""Choosing by coordinates: does the place look like the photo to a location encoder?"""

import functools
from collections.abc import Callable

import numpy as np

from geoloc.encoders.alignment import load_alignment, part_of
from geoloc.encoders.config import EncoderConfig
from geoloc.encoders.location import LocationEncoder
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.scorers import Score


def location_cosine(config: EncoderConfig, device: str = "cpu") -> Score:
    """Scores candidates by the cosine of a photo and of their encoded coordinates in the encoder's location space."""
    if config.alignment is not None:
        encode = load_alignment(config.alignment).to(device).encode_locations
        return functools.partial(_cosine, encode, lambda vectors: part_of(vectors, "location"))
    return functools.partial(_cosine, LocationEncoder.geoclip().to(device).encode, None)


def _cosine(
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    in_location_space: Callable[[np.ndarray], np.ndarray] | None,
    photos: np.ndarray,
    candidates: Candidates,
) -> np.ndarray:
    """``encode``: latitudes and longitudes (n,) to unit vectors (n, d); a place that many photos share is encoded once."""
    known = candidates.known
    points = np.stack([candidates.lat[known], candidates.lon[known]], axis=1)
    points, inverse = np.unique(points, axis=0, return_inverse=True)
    vectors = encode(points[:, 0], points[:, 1])
    photos = in_location_space(photos) if in_location_space else photos
    scores = np.full(known.shape, -np.inf, np.float32)
    photo = np.nonzero(known)[0]
    scores[known] = np.einsum("id,id->i", vectors[inverse.reshape(-1)], photos[photo])
    return scores
