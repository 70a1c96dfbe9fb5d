import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoloc.estimate.spread import estimate


def one(scores, lat, lon, scale=1.0):
    found = estimate(np.array([scores], np.float32), scale, np.array([lat]), np.array([lon]))
    return int(found.chosen[0]), float(found.confidence[0]), float(found.radius_km[0])


def test_all_in_one_place_is_sure():
    assert one([1, 1, 1], [48.0, 48.0, 48.0], [2.0, 2.0, 2.0]) == (0, pytest.approx(1), pytest.approx(0))


def test_weights_by_hand():
    """softmax([ln 8, 0, 0]) = .8, .1, .1: the radius of 90 % reaches the second of the two others."""
    chosen, confidence, radius = one([np.log(8), 0, 0], [0.0, 1.0, 10.0], [0.0, 0.0, 0.0])
    assert chosen == 0
    assert confidence == pytest.approx(0.8, abs=1e-6)
    assert radius == pytest.approx(111.195, abs=0.01)


def test_the_first_of_equals_wins_and_no_candidate_counts_for_nothing():
    chosen, confidence, radius = one([-np.inf, 3, 3], [80.0, 0.0, 0.1], [0.0, 0.0, 0.0])
    assert (chosen, confidence) == (1, pytest.approx(1))
    assert radius == pytest.approx(11.12, abs=0.01)


@given(arrays(np.float32, (3, 7), elements=st.floats(-1e4, 1e4, width=32)))
def test_always_finite_and_in_range(scores):
    lat, lon = np.linspace(-89, 89, 21).reshape(3, 7), np.linspace(-180, 180, 21).reshape(3, 7)
    found = estimate(scores, 40.0, lat, lon)
    assert np.array_equal(found.chosen, scores.argmax(axis=1))
    assert np.all((found.confidence > 0) & (found.confidence <= 1 + 1e-6))
    assert np.all((found.radius_km >= 0) & (found.radius_km < 20_020))
