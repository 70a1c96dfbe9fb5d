"""Which of a photo's candidates is it? Choosers score them; the highest score is the answer."""

from typing import Protocol

import numpy as np

from geoloc.encoders.presets import Preset
from geoloc.errors import UsageError
from geoloc.geo.distance import haversine_km
from geoloc.ranking.candidates import Candidates


class Chooser(Protocol):
    name: str
    scale: float
    """``softmax(scale * scores)`` weighs a photo's candidates against each other."""

    def scores(self, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
        """Vectors (n, d) of photos and their candidates to scores (n, k) float32; -inf where there is no candidate."""
        ...


class Top1:
    """The most similar reference (nearest neighbour; GeoRanker §4.5 "Top-1")."""

    name = "top1"

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def scores(self, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
        return np.where(candidates.row >= 0, candidates.similarity, -np.inf).astype(np.float32)


class Density:
    """The candidate where most candidates are: the mode of a kernel density over their coordinates ([L]kNN, Vo 2017).

    log density_i = log sum_j w_j exp(-d_ij² / 2 sigma²), w the softmax of the similarities. The paper's sigma is 4
    with no unit given; read as degrees of latitude that is 445 km, which is our default.
    """

    name = "density"
    scale = 1.0

    def __init__(self, similarity_scale: float, sigma_km: float = 445.0) -> None:
        self._similarity_scale = similarity_scale
        self._sigma_km = sigma_km

    def scores(self, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
        known = candidates.row >= 0
        logits = np.where(known, self._similarity_scale * candidates.similarity, -np.inf)
        lat, lon = candidates.lat, candidates.lon
        km = haversine_km(lat[:, :, None], lon[:, :, None], lat[:, None, :], lon[:, None, :])
        exponent = logits[:, None, :] - km**2 / (2 * self._sigma_km**2)
        top = exponent.max(axis=2, keepdims=True)
        density = top[..., 0] + np.log(np.exp(exponent - top).sum(axis=2))
        return np.where(known, density, -np.inf).astype(np.float32)


CHOOSERS = ("top1", "density", "verification")


GEORANKER = "georanker"


def score_scale(name: str, preset: Preset) -> float:
    """The ``scale`` of the chooser called ``name``, or of GEORANKER, whose scores are logits."""
    return 1.0 if name in (Density.name, GEORANKER) else preset.similarity_scale


def check_chooser(name: str, preset: Preset) -> None:
    """Raises UsageError where the preset cannot serve the chooser."""
    if name not in CHOOSERS:
        raise UsageError(f"--chooser {name}: there is {', '.join(CHOOSERS)}")
    if name == "verification" and not preset.has_location_space:
        raise UsageError(
            f"--chooser verification: preset {preset.name} has no location space to compare images and coordinates in; "
            "use --chooser top1 or density, or --preset geoclip or a trained alignment"
        )


def choosers_for(preset: Preset) -> list[str]:
    """All that the preset can serve."""
    return [name for name in CHOOSERS if name != "verification" or preset.has_location_space]
