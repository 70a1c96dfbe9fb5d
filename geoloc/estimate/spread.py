"""How sure an answer is, from how far its rivals are. Uncalibrated: it orders photos, it is no probability."""

from dataclasses import dataclass

import numpy as np

from geoloc.geo.distance import haversine_km

NEAR_KM = 25
"""``confidence`` is the weight of the candidates this near to the answer."""
RADIUS_SHARE = 0.9
"""``radius_km`` holds this share of the candidates' weight."""


@dataclass(frozen=True)
class Estimates:
    """For n photos: which candidate (n,), and how sure (n,)."""

    chosen: np.ndarray
    confidence: np.ndarray
    radius_km: np.ndarray


def estimate(
    scores: np.ndarray, scale: float, lat: np.ndarray, lon: np.ndarray, extent_km: np.ndarray | None = None
) -> Estimates:
    """The highest of the scores (n, k), the first of equals, and the spread of softmax(scale * scores) around it.

    A score of -inf is no candidate; every photo has at least one. A candidate that is a cell reaches as far as ``extent_km`` (n, k)
    around its place.

    >>> found = estimate(np.array([[0.0, 0.0, -np.inf]]), 1.0, np.array([[0.0, 1.0, 0.0]]), np.zeros((1, 3)))
    >>> found.chosen, found.confidence, found.radius_km.round(1)
    (array([0]), array([0.5], dtype=float32), array([111.2], dtype=float32))
    """
    row = np.arange(len(scores))
    chosen = np.argmax(scores, axis=1)
    logits = scale * scores.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    km = haversine_km(lat[row, chosen][:, None], lon[row, chosen][:, None], lat, lon)
    km = np.where(weights > 0, km if extent_km is None else km + extent_km, 0)
    confidence = (weights * (km <= NEAR_KM)).sum(axis=1)
    order = np.argsort(km, axis=1)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1) >= RADIUS_SHARE - 1e-9
    radius = np.take_along_axis(km, order, axis=1)[row, np.argmax(reached, axis=1)]
    return Estimates(chosen, confidence.astype(np.float32), radius.astype(np.float32))
