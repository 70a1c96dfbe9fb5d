"""How good the candidates are, and how well they are ranked: what a chooser could reach, and how much of it it does.

recall@k      share of photos with a right candidate among the k most similar; the accuracy of a perfect ranker of k
oracle        recall over all candidates
nearest_first share of photos whose highest score is on the candidate nearest to the truth (ranking accuracy)
pairs         share of pairs of candidates, of one photo, whose scores are ordered as their distances are
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from geoloc.evaluation.protocol import Protocol
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.ranking.candidates import padded

RECALL_AT = (1, 2, 3, 5, 10, 15, 20, 50, 100, 200, 500, 1000, 2000)
_PAIRS_AT_ONCE = 5_000_000


@dataclass(frozen=True)
class CandidateQuality:
    most: int
    """Candidates of the photo that has most."""
    recall: dict[int, dict[int, float]]
    """k to threshold to percent, k from RECALL_AT below ``most``, and ``most``, which is the oracle."""
    nearest_first: float
    """Percent of the photos that have candidates."""
    pairs: float
    """Percent; pairs with equal distances do not count, pairs with equal scores count half."""


class CandidateTally:
    """Adds up photos, a piece at a time."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._with = self._nearest = 0
        self._in_order = self._pairs = 0.0
        self._first_right = np.zeros((len(THRESHOLDS_KM), 0), np.int64)

    def add(self, lists: pa.ListArray, true_lat: np.ndarray, true_lon: np.ndarray) -> None:
        """Candidates of n photos (fields lat, lon, score, similarity), which were at (n,)."""
        lengths, fields = padded(lists, ["lat", "lon", "score", "similarity"])
        there = np.arange(fields["lat"].shape[1]) < lengths[:, None]
        photo = np.nonzero(there)[0]
        km = np.full(there.shape, np.inf)
        km[there] = self._protocol.km(fields["lat"][there], fields["lon"][there], true_lat[photo], true_lon[photo])
        score, similarity = fields["score"], fields["similarity"]
        self._count_right(km, similarity)
        some = lengths > 0
        self._with += int(some.sum())
        if km.shape[1]:
            best = km[np.arange(len(km)), np.argmax(score, axis=1)]
            self._nearest += int((best[some] <= km[some].min(axis=1)).sum())
            step = max(1, _PAIRS_AT_ONCE // km.shape[1] ** 2)
            for at in range(0, len(km), step):
                self._count_pairs(km[at : at + step], score[at : at + step])

    def _count_right(self, km: np.ndarray, similarity: np.ndarray) -> None:
        """How many photos' first right candidate, by similarity, is at each rank."""
        ranked = np.take_along_axis(km, np.argsort(-similarity, axis=1, kind="stable"), axis=1)
        width = max(ranked.shape[1], self._first_right.shape[1])
        self._first_right = np.pad(self._first_right, ((0, 0), (0, width - self._first_right.shape[1])))
        for number, threshold in enumerate(THRESHOLDS_KM):
            right = self._protocol.within(ranked, threshold)
            first = np.argmax(right, axis=1)[right.any(axis=1)] if ranked.shape[1] else np.zeros(0, np.int64)
            self._first_right[number] += np.bincount(first, minlength=width)

    def _count_pairs(self, km: np.ndarray, score: np.ndarray) -> None:
        a, b = np.triu_indices(km.shape[1], 1)
        scored = np.isfinite(km) & np.isfinite(score)
        real = scored[:, a] & scored[:, b] & (km[:, a] != km[:, b])
        with np.errstate(invalid="ignore"):
            nearer, higher = np.sign(km[:, b] - km[:, a]), np.sign(score[:, a] - score[:, b])
        self._pairs += float(real.sum())
        self._in_order += float(((nearer * higher + 1) / 2)[real].sum())

    def result(self, photos: int) -> CandidateQuality | None:
        """Of so many photos, of which those that were not added have no candidates. None where none has any."""
        if not self._with:
            return None
        most = self._first_right.shape[1]
        reached = 100 * np.cumsum(self._first_right, axis=1) / photos
        recall = {
            k: {threshold: float(reached[number, k - 1]) for number, threshold in enumerate(THRESHOLDS_KM)}
            for k in [*(k for k in RECALL_AT if k < most), most]
        }
        pairs = 100 * self._in_order / self._pairs if self._pairs else float("nan")
        return CandidateQuality(most, recall, 100 * self._nearest / self._with, pairs)
