"""What a collection tells of itself."""

from dataclasses import replace

import numpy as np
import pytest

from geoloc.context.collection import Collection, Parameters, hidden, located
from geoloc.context.defaults import for_minutes, shipped_confidence
from geoloc.context.learning import learned
from geoloc.context.parameters import of_json, to_json
from geoloc.context.units import units
from geoloc.geo.distance import haversine_km
from geoloc.toy.trips import household, somewhere


def archive(households: int) -> Collection:
    """Everybody's cameras, each photo's place known, with an estimate that is right as often as not."""
    chains, clocks, places, estimates = [], [], [], []
    for seed in range(households):
        random = np.random.default_rng(seed)
        shots = household(random, somewhere(random), trips=3).shots
        right = random.random((len(shots), 1)) < 0.5
        off = np.where(right, random.normal(0, 0.03, (len(shots), 2)), random.normal(0, 15, (len(shots), 2)))
        chains.append(shots.device + 10 * seed)
        clocks.append(shots.clock)
        places.append(shots.place)
        estimates.append(np.clip(shots.place + off, [-89, -180], [89, 180]))
    chain, clock, place, estimate = (np.concatenate(one) for one in (chains, clocks, places, estimates))
    return Collection(chain, clock, True, place, estimate[:, None], np.ones((len(chain), 1)))


@pytest.fixture(scope="module")
def whole() -> Collection:
    return archive(5)


@pytest.mark.parametrize("by", ["day", "trip"])
def test_an_archives_own_photos_say_how_sure_its_answers_are(whole, by):
    """Those whose place is not known lie in days, or trips, of their own."""
    codes = units(whole, by)
    unknown = (np.random.default_rng(0).random(int(codes.max()) + 1) < 0.7)[codes]
    given = hidden(whole, np.flatnonzero(unknown))
    own = learned(given)
    km, radius = {}, {}
    for name, confidence in (("own", own.confidence), ("shipped", shipped_confidence())):
        joint = located(given, Parameters(own.model, confidence))
        km[name] = haversine_km(joint.lat, joint.lon, *whole.known.T)[unknown]
        radius[name] = joint.radius_km[unknown]
    assert 0.82 < np.mean(km["own"] <= radius["own"]) < 0.97
    assert np.median(radius["own"]) < np.median(radius["shipped"]) / 4


def test_an_old_cameras_answers_are_not_told_with_a_telephones_confidence(whole):
    """Cameras without any known place, whose estimates agree far less."""
    others = np.isin(whole.chain % 10, [1, 2, 3])
    random = np.random.default_rng(0)
    worse = whole.candidates + (others * (random.random(len(whole)) < 0.9))[:, None, None] * random.normal(
        0, 15, (len(whole), 1, 2)
    )
    given = replace(whole, candidates=np.clip(worse, [-89, -180], [89, 180]))
    own = learned(hidden(given, np.flatnonzero(others)))
    assert own.confidence != shipped_confidence()
    assert own.confidence_of_others == shipped_confidence()
    assert learned(hidden(whole, np.flatnonzero(others))).confidence_of_others is None
    assert of_json(to_json(own)) == own


def test_few_photos_say_nothing(whole):
    few = hidden(whole, np.arange(200, len(whole)))
    assert learned(few).confidence == shipped_confidence()


def test_parameters_are_the_same_from_json(whole):
    for one in (learned(whole), Parameters(for_minutes(), shipped_confidence())):
        assert of_json(to_json(one)) == one
