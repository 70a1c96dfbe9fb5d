"""Do confidences mean what they say? Of photos given 0.8, are 80 % right, and do the radii hold what they promise?"""

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Per bin of confidence, equally wide, empty ones left out."""

    confidence: np.ndarray
    """(bins,) its photos' mean confidence."""
    accuracy: np.ndarray
    """(bins,) the share of them that is right."""
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |confidence - accuracy| over photos (Guo et al. 2017)."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.count))


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability | None:
    """Of n photos: confidence (n,) in 0 … 1, NaN where there is none, and whether the answer was right, (n,) bool.

    None where no photo has a confidence.
    """
    known = np.isfinite(confidence)
    if not known.any():
        return None
    confidence, right = confidence[known], right[known]
    which = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    filled = count > 0
    mean, share = (np.bincount(which, v, bins)[filled] / count[filled] for v in (confidence, right.astype(float)))
    return Reliability(mean, share, count[filled])


def coverage(radius_km: np.ndarray, km: np.ndarray) -> float:
    """The share of photos with a radius whose error is not above it; NaN where none has one."""
    known = np.isfinite(radius_km)
    return float((km[known] <= radius_km[known]).mean()) if known.any() else float("nan")
