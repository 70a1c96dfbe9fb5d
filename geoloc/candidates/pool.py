"""A pool: what several lists of neighbours find for a photo, gathered to places, so that a ranker compares places and not photos.

After the one-step pipeline of pinpoint-rl, which stands behind Pinpoint (arXiv 2606.04133): hits of indexes of one kind, whose
similarities compare, are gathered to places, best first; photos' places and a gallery's take turns, and those within a kilometre are
one.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc.geo.distance import EARTH_RADIUS_KM, unit_vectors

LEAST = 0.01
"""Probability that is added to a region's, so that none is impossible."""


@dataclass(frozen=True)
class Pooling:
    """How a pool is made. A ranker that learned from pools of one kind serves no others."""

    depth: int = 500
    """Hits of each list that are looked at."""
    within_km: float = 1.0
    """Of a place's founder: its hits, and other lists' places that are the same."""
    prior_weight: float = 0.01
    """Of ln(P(region) + 0.01), which is added to the similarity of photos before they are gathered."""
    voters: int = 100
    """Hits by which P(region) is voted."""
    temperature: float = 0.03
    """Votes weigh exp(similarity / temperature)."""
    centroid_temperature: float = 0.05
    """Hits weigh exp(similarity / temperature) in where their place is."""


@dataclass(frozen=True)
class Hits:
    """What one index finds for n photos: arrays (n, d), most similar first."""

    kind: str
    """Of the index: ``photos`` or ``gallery``."""
    row: np.ndarray
    """Of all indexes together; -1 where nothing is found."""
    similarity: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    region: np.ndarray
    """Its number; -1 for none."""

    @property
    def there(self) -> np.ndarray:
        return self.row >= 0

    @functools.cached_property
    def at(self) -> np.ndarray:
        """(n, d, 3) on the unit sphere; 0 where nothing is found."""
        return np.where(self.there[:, :, None], unit_vectors(self.lat, self.lon), 0)


@dataclass(frozen=True)
class Pool:
    """Of n photos, p places each: arrays (n, p), in the order in which lists name them."""

    row: np.ndarray
    """Of its most similar photo, or else of its coordinate in a gallery; -1 for no place."""
    similarity: np.ndarray
    """Of that."""
    lat: np.ndarray
    lon: np.ndarray
    region: np.ndarray
    rank: np.ndarray
    """(n, p, kinds): which of that kind's places it is, from 1; 0 where it is none of its first. Kinds as ``kinds_of`` has them."""


def kinds_of(lists: Sequence[str]) -> list[str]:
    """Of lists, each once, in their order.

    >>> kinds_of(["gallery", "photos", "photos"])
    ['gallery', 'photos']
    """
    return list(dict.fromkeys(lists))


def region_votes(lists: Sequence[Hits], pooling: Pooling, regions: int) -> np.ndarray:
    """P(region) of n photos, (n, regions): by its most similar photos, or by coordinates where no list is of photos.

    >>> hits = Hits("photos", np.array([[3, 4]]), np.array([[0.5, 0.5]]), *np.zeros((2, 1, 2)), np.array([[1, 0]]))
    >>> region_votes([hits], Pooling(), 3)
    array([[0.5, 0.5, 0. ]])
    """
    voting = [hits for hits in lists if hits.kind == "photos"] or list(lists)
    similarity, region = (
        np.concatenate([getattr(h, name) for h in voting], axis=1) for name in ("similarity", "region")
    )
    similarity = np.where(np.concatenate([h.there for h in voting], axis=1), similarity, -np.inf)
    if len(voting) > 1:
        first = np.argsort(-similarity, axis=1, kind="stable")[:, : pooling.voters]
        similarity, region = (np.take_along_axis(values, first, axis=1) for values in (similarity, region))
    similarity, region = similarity[:, : pooling.voters], region[:, : pooling.voters]
    top = np.maximum(similarity.max(axis=1, initial=-np.inf, keepdims=True), -2)
    weight = np.where(region >= 0, np.exp((similarity - top).astype(np.float64) / pooling.temperature), 0)
    photo = np.arange(len(weight))[:, None] * regions
    votes = np.bincount((photo + np.maximum(region, 0)).ravel(), weight.ravel(), len(weight) * regions)
    votes = votes.reshape(-1, regions)
    return votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-12)


def log_prior(probability: np.ndarray, region: np.ndarray) -> np.ndarray:
    """ln(P + 0.01) of regions (n, m), by their probabilities (n, regions)."""
    found = np.take_along_axis(probability, np.maximum(region, 0), axis=1)
    return np.log(np.where(region >= 0, found, 0) + LEAST)


def pool(lists: Sequence[Hits], probability: np.ndarray, pooling: Pooling, places: int) -> Pool:
    """The places that lists (one at least) name, so many at most, by P(region) (n, regions)."""
    kinds = kinds_of([hits.kind for hits in lists])
    each = -(-places // len(kinds))
    found = [
        _gathered(_joined([hits for hits in lists if hits.kind == kind]), probability, pooling, each) for kind in kinds
    ]
    n, named = len(probability), len(kinds) * each
    names = ("place", "row", "similarity", "region")
    of_all = {name: np.stack([f[name] for f in found], axis=2) for name in names}  # (n, each, kinds, …)
    of_all = {name: values.reshape(n, named, *values.shape[3:]) for name, values in of_all.items()}
    same = founded_by(of_all["place"], of_all["row"] >= 0, pooling.within_km, places)
    pooled = {"row": np.full((n, places), -1), "similarity": np.zeros((n, places), np.float32)}
    pooled |= {"region": np.full((n, places), -1), "place": np.zeros((n, places, 3))}
    rank, shown = np.zeros((n, places, len(kinds)), np.int64), np.zeros((n, places), bool)
    for number in range(named):
        photos, kind = np.flatnonzero(same[:, number] >= 0), number % len(kinds)
        at = photos, same[photos, number]
        new, shows = pooled["row"][at] < 0, kinds[kind] == "photos"
        shown_first = new | (shows & ~shown[at])
        for name, some in (("place", new), ("region", new), ("row", shown_first), ("similarity", shown_first)):
            pooled[name][photos[some], at[1][some]] = of_all[name][photos[some], number]
        shown[at] |= shows
        of_kind = rank[(*at, kind)]
        rank[(*at, kind)] = np.where(of_kind == 0, number // len(kinds) + 1, of_kind)
    lat, lon = _degrees(pooled.pop("place"))
    return Pool(lat=lat, lon=lon, rank=rank, **pooled)


def _joined(lists: Sequence[Hits]) -> Hits:
    """Of one kind, one after the other."""
    if len(lists) == 1:
        return lists[0]
    names = ("row", "similarity", "lat", "lon", "region")
    return Hits(lists[0].kind, *(np.concatenate([getattr(hits, name) for hits in lists], axis=1) for name in names))


def founded_by(at: np.ndarray, there: np.ndarray, within_km: float, most: int) -> np.ndarray:
    """Which place each of m points (n, m, 3) on the unit sphere belongs to, (n, m), numbered as they are founded.

    In their order, a point founds a place unless it lies within ``within_km`` of the founder of an earlier one, which it belongs to,
    the earliest such. -1: it is not ``there``, or would have founded one more than ``most``.

    >>> founded_by(unit_vectors([[10, 50, 10.005]], [[20, 20, 20]]), np.ones((1, 3), bool), 1.0, 5)
    array([[0, 1, 0]])
    """
    place, left = np.full(there.shape, -1), there.copy()
    photo, near = np.arange(len(at)), np.cos(within_km / EARTH_RADIUS_KM)
    for number in range(min(most, there.shape[1])):
        founder = left.argmax(axis=1)
        if not left[photo, founder].any():
            break
        joins = left & (np.matmul(at, at[photo, founder][:, :, None])[:, :, 0] >= near)
        joins[photo, founder] = left[photo, founder]
        place[joins] = number
        left &= ~joins
    return place


def _gathered(hits: Hits, probability: np.ndarray, pooling: Pooling, most: int) -> dict[str, np.ndarray]:
    """The first places (n, most) that hits of one kind name: where they are (n, most, 3), and the first hits of each."""
    score = np.where(hits.there, hits.similarity, -np.inf).astype(np.float64)
    if hits.kind == "photos" and pooling.prior_weight:
        score += pooling.prior_weight * log_prior(probability, hits.region)
    order = np.argsort(-score, axis=1, kind="stable")
    score = np.take_along_axis(score, order, axis=1)
    at = np.take_along_axis(hits.at, order[:, :, None], axis=1)
    place = founded_by(at, np.isfinite(score), pooling.within_km, most)
    top = np.maximum(score.max(axis=1, initial=-np.inf, keepdims=True), -1e6)
    weight = np.exp(np.maximum(score - top, -1e6) / pooling.centroid_temperature)
    n, numbers = len(score), np.arange(most)
    first = np.stack([(place == number).argmax(axis=1) for number in numbers], axis=1)
    exists = np.take_along_axis(place, first, axis=1) == numbers
    centre = np.zeros((n, most, 3))
    photos, members = np.nonzero(place >= 0)
    np.add.at(centre, (photos, place[photos, members]), weight[photos, members, None] * at[photos, members])
    found = {
        name: np.take_along_axis(getattr(hits, name), np.take_along_axis(order, first, axis=1), axis=1)
        for name in ("row", "similarity", "region")
    }
    found["row"] = np.where(exists, found["row"], -1)
    length = np.linalg.norm(centre, axis=2, keepdims=True)
    founder = np.take_along_axis(at, first[:, :, None], axis=1)
    found["place"] = np.where(length > 1e-12, centre / np.maximum(length, 1e-12), founder)
    return found


def _degrees(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.degrees(np.arcsin(np.clip(at[..., 2], -1, 1))), np.degrees(np.arctan2(at[..., 1], at[..., 0]))
