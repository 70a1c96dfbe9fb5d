import numpy as np
import pytest

from geoloc.errors import UsageError
from geoloc.evaluation.protocol import Protocol, geoguessr_score


def test_the_formula_flips_a_hit():
    """methods.md 8: 24.9345 km on the ellipsoid, 25.0745 km on a sphere of 6371 km."""
    geodesic, haversine = Protocol(), Protocol("haversine", sphere_km=6371)
    km = [p.km(0.0, 0.0, 0.2255, 0.0) for p in (geodesic, haversine)]
    assert np.round(km, 6).tolist() == [24.934500, 25.074456]
    assert [bool(geodesic.within(d, 25)) for d in km] == [True, False]
    km = [p.km(46.167286, 7.099698, 44.173955, 6.697883) for p in (geodesic, haversine)]
    assert np.round(km, 6).tolist() == [223.768850, 223.874424]


def test_exactly_at_the_threshold():
    assert not Protocol().within(np.array(25.0), 25)
    assert Protocol(rule="le").within(np.array(25.0), 25)
    for rule in ("lt", "le"):
        assert not Protocol(rule=rule).within(np.array(np.inf), 2500)


def test_across_the_antimeridian():
    assert Protocol().km(10.0, 179.9, 10.0, -179.9) == pytest.approx(21.93, abs=0.01)


def test_geoguessr_score():
    assert geoguessr_score([0.0, 1492.7, np.inf]).tolist() == pytest.approx([5000, 5000 / np.e, 0])


def test_what_cannot_be():
    with pytest.raises(UsageError, match="--sphere-km -1"):
        Protocol(sphere_km=-1).check()
