import numpy as np
import pyarrow as pa
import pytest

from geoloc.evaluation.candidates import CandidateTally
from geoloc.evaluation.protocol import Protocol


def lists(*photos):
    """Each photo a list of (lat, lon, score, similarity)."""
    kind = pa.list_(pa.struct({name: pa.float64() for name in ("lat", "lon", "score", "similarity")}))
    names = ("lat", "lon", "score", "similarity")
    return pa.array([p and [dict(zip(names, c, strict=True)) for c in p] for p in photos], kind)


# Degrees of latitude north of (0, 0): 0.1 is 11 km, 1 is 111 km.
PHOTOS = lists(
    [(1.0, 0, 0.1, 0.9), (0.1, 0, 0.9, 0.8), (50, 0, 0.5, 0.7)],  # nearest is second by similarity, first by score
    [(50.0, 0, 0.9, 0.9), (0.1, 0, 0.1, 0.8)],
    None,
)


def tally(photos=4):
    count = CandidateTally(Protocol())
    count.add(PHOTOS, np.zeros(3), np.zeros(3))
    return count.result(photos)


def test_recall_counts_all_photos_and_ranks_by_similarity():
    result = tally()
    assert result.most == 3
    assert list(result.recall) == [1, 2, 3]
    assert result.recall[1] == {1: 0, 25: 0, 200: 25, 750: 25, 2500: 25}
    assert result.recall[2] == {1: 0, 25: 50, 200: 50, 750: 50, 2500: 50}
    assert result.recall[3] == result.recall[2]


def test_ranking_is_judged_by_score():
    result = tally()
    assert result.nearest_first == 50
    # first photo: (1, .1), (.1, .9), (50, .5) has 2 of 3 pairs in order; second: 0 of 1
    assert result.pairs == pytest.approx(100 * 2 / 4)


def test_pieces_add_up():
    whole, parts = CandidateTally(Protocol()), CandidateTally(Protocol())
    whole.add(PHOTOS, np.zeros(3), np.zeros(3))
    for i in range(3):
        parts.add(PHOTOS[i : i + 1], np.zeros(1), np.zeros(1))
    assert whole.result(3) == parts.result(3)


def test_no_candidates_at_all():
    count = CandidateTally(Protocol())
    count.add(lists(None, None), np.zeros(2), np.zeros(2))
    assert count.result(2) is None
