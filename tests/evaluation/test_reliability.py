import numpy as np
import pytest

from geoloc.evaluation.reliability import coverage, reliability


def test_honest_confidences_have_no_error(random):
    confidence = random.uniform(size=200_000)
    assert reliability(confidence, random.uniform(size=200_000) < confidence).error < 0.01


def test_known_answer():
    curve = reliability(np.array([0.95, 0.95, 0.05, np.nan]), np.array([True, False, False, True]))
    assert curve.count.tolist() == [1, 2]
    assert curve.error == pytest.approx((0.05 + 2 * 0.45) / 3)
    assert reliability(np.array([np.nan]), np.array([True])) is None


def test_certainty_is_in_the_last_bin():
    assert reliability(np.ones(3), np.ones(3, bool)).error == 0


def test_coverage():
    assert coverage(np.array([10.0, 10, 10, np.nan]), np.array([5.0, 10, 11, 1])) == pytest.approx(2 / 3)
    assert np.isnan(coverage(np.array([np.nan]), np.array([1.0])))
