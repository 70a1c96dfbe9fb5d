"""What speaks for a place, worked out by hand."""

import numpy as np
import pytest

from geoloc.candidates.pool import Hits, Pooling, pool
from geoloc.geo.distance import haversine_km
from geoloc.ranking.evidence import evidence, feature_names

PARIS, SUBURB, LYON = (48.8566, 2.3522), (48.9362, 2.3574), (45.7640, 4.8357)


def hits(kind: str, rows, similarity, places, region) -> Hits:
    lat, lon = np.array(places, float).T
    return Hits(kind, np.array([rows]), np.array([similarity], np.float32), lat[None], lon[None], np.array([region]))


def test_by_hand():
    """Photos: Paris twice, Lyon, a suburb of Paris 9 km away; a gallery that knows Lyon, and a place on the sea."""
    photos = hits("photos", [1, 2, 3, 4], [0.9, 0.8, 0.7, 0.6], [PARIS, PARIS, LYON, SUBURB], [0, 0, 1, 0])
    gallery = hits("gallery", [10, 11], [0.30, 0.25], [LYON, (0.0, 0.0)], [1, -1])
    probability = np.array([[0.75, 0.25]])
    found = pool([gallery, photos], probability, Pooling(prior_weight=0), 8)
    assert found.row.tolist() == [[3, 1, 11, 4, -1, -1, -1, -1]]
    to_lyon = haversine_km(*PARIS, *LYON)
    rows = dict(
        zip(("Lyon", "Paris", "sea", "suburb"), evidence([gallery, photos], found, probability)[0], strict=False)
    )
    names = feature_names(["gallery", "photos"])
    expected = {
        "Lyon": {
            "gallery rank": 1,
            "gallery best": 0,
            "gallery near": np.log(2),
            "gallery around": np.log(2),
            "gallery from_top": 0,
            "photos rank": 1 / 2,
            "photos best": 0.7 - 0.9,
            "photos near": np.log(2),
            "photos around": np.log(2),
            "photos from_top": np.log1p(to_lyon),
            "region": np.log(0.26),
        },
        "Paris": {
            "gallery rank": 0,
            "gallery best": 0.25 - 0.30,  # none near: the last of the list stands for it
            "gallery near": 0,
            "gallery around": 0,
            "gallery from_top": np.log1p(to_lyon),
            "photos rank": 1,
            "photos best": 0,
            "photos near": np.log(3),
            "photos around": np.log(4),  # with the suburb
            "photos from_top": 0,
            "region": np.log(0.76),
        },
        "sea": {
            "gallery rank": 1 / 2,
            "gallery best": -0.05,
            "photos best": 0.6 - 0.9,
            "photos near": 0,
            "region": np.log(0.01),
        },
        "suburb": {
            "photos rank": 1 / 3,
            "photos best": 0.6 - 0.9,
            "photos near": np.log(2),
            "photos around": np.log(4),
        },
    }
    for place, features in expected.items():
        for name, value in features.items():
            assert rows[place][names.index(name)] == pytest.approx(value, abs=1e-4), (place, name)


def test_what_is_no_place_has_no_evidence():
    photos = hits("photos", [1, -1], [0.9, 0.0], [PARIS, (0, 0)], [0, -1])
    found = pool([photos], np.ones((1, 1)), Pooling(), 3)
    features = evidence([photos], found, np.ones((1, 1)))
    assert not features[0, 1:].any()
    assert features[0, 0, feature_names(["photos"]).index("photos near")] == pytest.approx(np.log(2))
    nothing = hits("photos", [-1, -1], [0, 0], [(0, 0), (0, 0)], [-1, -1])
    assert not evidence([nothing], pool([nothing], np.ones((1, 1)), Pooling(), 3), np.ones((1, 1))).any()


def test_the_fifteen_of_pinpoint_rl_are_among_those_of_its_three_lists():
    names = feature_names(["gallery", "photos", "photos"])
    assert len(names) == 15
    assert names[-2:] == ["photos 2 from_top", "region"]
