"""Hits gathered to places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.candidates.pool import Hits, Pooling, founded_by, log_prior, pool, region_votes
from geoloc.geo.distance import haversine_km, unit_vectors

KM = 1 / 111.195
"""In degrees of latitude."""
NO_PRIOR = Pooling(prior_weight=0)


def hits(kind: str, rows, similarity, lat, region=None) -> Hits:
    """Of one photo; all at longitude 10."""
    row, lat = np.array([rows]), np.array([lat], float)
    region = np.zeros(row.shape, int) if region is None else np.array([region])
    return Hits(kind, row, np.array([similarity], np.float32), lat, np.full(lat.shape, 10.0), region)


def certain(regions: int = 1) -> np.ndarray:
    return np.full((1, regions), 1 / regions)


def test_hits_within_a_kilometre_of_a_founder_are_one_place():
    """Where they are is their mean, by similarity: the second weighs exp(-0.05 / 0.05) of the first."""
    found = pool([hits("photos", [7, 8, 9], [0.9, 0.85, 0.5], [50, 50 + 0.8 * KM, 51])], certain(), NO_PRIOR, 3)
    assert found.row.tolist() == [[7, 9, -1]]
    share = np.exp(-1) / (1 + np.exp(-1))
    assert found.lat[0, 0] == pytest.approx(50 + 0.8 * KM * share, abs=1e-6)
    assert found.lat[0, 1] == pytest.approx(51)
    assert found.lon[0, :2] == pytest.approx([10, 10])
    assert found.rank[0, :, 0].tolist() == [1, 2, 0]


def test_it_is_the_founder_that_counts_and_not_the_last_that_joined():
    """Three in a row, 0.8 km apart: the third is 1.6 km from the first."""
    found = pool(
        [hits("photos", [1, 2, 3], [0.9, 0.8, 0.7], [50, 50 + 0.8 * KM, 50 + 1.6 * KM])], certain(), NO_PRIOR, 5
    )
    assert found.row.tolist() == [[1, 3, -1, -1, -1]]


def test_lists_take_turns_and_what_both_find_is_one_place_with_a_picture():
    gallery = hits("gallery", [100, 101, 102], [0.3, 0.2, 0.1], [40, 45, 60])
    photos = hits("photos", [7, 8], [0.9, 0.8], [45.001, 70])
    found = pool([gallery, photos], certain(), NO_PRIOR, 6)
    assert found.row.tolist() == [[100, 7, 8, 102, -1, -1]]  # 101 of the gallery is where photo 7 was taken
    assert found.lat[0, :4] == pytest.approx([40, 45.001, 70, 60], abs=1e-3)
    assert found.similarity[0, :4] == pytest.approx([0.3, 0.9, 0.8, 0.1])
    assert found.rank[0, :4].tolist() == [[1, 0], [2, 1], [0, 2], [3, 0]]


def test_two_indexes_of_photos_are_one_list():
    one, two = hits("photos", [1, 2], [0.9, 0.3], [10, 20]), hits("photos", [3, 4], [0.8, 0.7], [30, 10.001])
    found = pool([one, two], certain(), NO_PRIOR, 3)
    assert found.row.tolist() == [[1, 3, 2]]
    assert found.rank[0].tolist() == [[1], [2], [3]]


def test_a_place_that_a_gallery_founded_has_the_pictures_row_and_its_own_coordinates():
    gallery, photos = hits("gallery", [100], [0.3], [40]), hits("photos", [7], [0.9], [40 + 0.5 * KM])
    found = pool([gallery, photos], certain(), NO_PRIOR, 2)
    assert found.row.tolist() == [[7, -1]]
    assert found.lat[0, 0] == pytest.approx(40)
    assert found.rank[0, 0].tolist() == [1, 1]


def test_regions_put_photos_in_another_order_but_not_a_gallery():
    """0.05 x (ln(0.91) - ln(0.11)) = 0.106 is more than 0.05 of similarity."""
    probability = np.array([[0.1, 0.9]])
    for kind, first in (("photos", 2), ("gallery", 1)):
        found = pool([hits(kind, [1, 2], [0.6, 0.55], [10, 20], [0, 1])], probability, Pooling(prior_weight=0.05), 2)
        assert found.row[0, 0] == first


def test_votes_by_hand():
    """exp(0.03 / 0.03) = e to 1, and what is beyond the voters, or in no region, does not count."""
    photos = hits("photos", [1, 2, 3, 4], [0.53, 0.5, 0.5, 0.5], [1, 2, 3, 4], [1, 0, -1, 0])
    gallery = hits("gallery", [9], [0.99], [1], [2])
    votes = region_votes([gallery, photos], Pooling(voters=3), 3)
    assert votes[0] == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e), 0])
    assert region_votes([gallery], Pooling(), 3)[0].tolist() == [0, 0, 1]
    assert log_prior(votes, np.array([[2, -1]]))[0] == pytest.approx(np.log([0.01, 0.01]))


def test_the_voters_of_two_lists_are_the_most_similar_of_both():
    one, two = hits("photos", [1, 2], [0.5, 0.1], [1, 2], [0, 0]), hits("photos", [3, 4], [0.5, 0.4], [1, 2], [1, 1])
    assert region_votes([one, two], Pooling(voters=2), 2)[0].tolist() == [0.5, 0.5]


def test_nothing_found_is_no_place():
    found = pool([hits("photos", [-1, -1], [0, 0], [0, 0], [-1, -1])], certain(), Pooling(), 3)
    assert found.row.tolist() == [[-1, -1, -1]]
    assert np.isfinite(found.lat).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.0, 60.0, 89.995]))
def test_places_are_founded_as_one_by_one(seed, points, most, latitude):
    """Against the rule, a point at a time; also at the pole and over the antimeridian."""
    random = np.random.default_rng(seed)
    lat = np.clip(latitude + random.normal(0, 0.012, points), -90, 90)
    lon = 179.995 + random.normal(0, 0.012, points)
    there = random.random(points) < 0.9
    founders, expected = [], []
    for n in range(points):
        near = [k for k, f in enumerate(founders) if haversine_km(lat[n], lon[n], lat[f], lon[f]) <= 1.0]
        if there[n] and not near:
            founders.append(n)
            near = [len(founders) - 1]
        expected.append(near[0] if there[n] and near[0] < most else -1)
    found = founded_by(unit_vectors(lat, lon)[None], there[None], 1.0, most)[0]
    assert found.tolist() == expected
