"""Who was with whom, and what their clocks differed by."""

import numpy as np
import pytest

from geoloc.context.clocks import Clock, Sightings, spells
from geoloc.context.defaults import for_minutes
from geoloc.geo.distance import unit_vectors

CITIES = np.array([[48.86, 2.35], [45.76, 4.84], [43.30, 5.37], [41.39, 2.17], [40.42, -3.70], [38.72, -9.14]])
START = 27_000_000.0
TRANSITION = for_minutes().transition


def moments(random: np.random.Generator, stays: int = 6, photos: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Minutes and places of photos of somebody who stays a day in each city."""
    at = np.sort(np.concatenate([START + 1440 * stay + random.uniform(0, 600, photos) for stay in range(stays)]))
    city = CITIES[((at - START) // 1440).astype(int) % len(CITIES)]
    return at, city + random.normal(0, 0.02, city.shape)


def sightings(minutes: np.ndarray, places: np.ndarray, sure: float = 0.98) -> Sightings:
    order = np.argsort(minutes)
    n = len(minutes)
    return Sightings(minutes[order], unit_vectors(*places[order].T), np.full(n, sure), np.full(n, sure > 0.9))


def both(offset: float, seed: int = 0) -> tuple[Sightings, Sightings]:
    """A camera whose clock is ahead, and the telephone of who stands beside, of whose photos half were taken at one moment."""
    random = np.random.default_rng(seed)
    at, places = moments(random)
    others, others_places = moments(random)
    again = random.random(len(at)) < 0.5
    beside = at[again] + random.uniform(-0.3, 0.3, again.sum())
    phone = sightings(np.concatenate([others, beside]), np.concatenate([others_places, places[again]]))
    return sightings(at + offset, places, sure=0.8), phone


@pytest.mark.parametrize("offset", [0.0, 60.0, -210.0, 7.0, -11_666_088.0])
def test_a_clocks_offset_is_found(offset):
    found = spells(*both(offset), TRANSITION, Clock())
    assert found
    for spell in found:
        assert abs(spell.offset - offset) <= 1
        assert spell.told
        assert spell.probability >= 0.9
    covered = sum(spell.stop - spell.start for spell in found)
    assert covered > 4 * 1440


def test_local_time_of_a_place_far_from_home():
    """The camera is on Auckland's time; nothing is known of its zone."""
    found = spells(*both(780.0), TRANSITION, Clock(expected=10.0, zone_spread=1.0))
    assert {spell.offset for spell in found} == {780.0}


def test_who_was_elsewhere_was_not_with_them():
    random = np.random.default_rng(1)
    at, _ = moments(random)
    home = np.full((len(at), 2), 51.5) * [1, 0] + random.normal(0, 0.05, (len(at), 2))
    traveller, places = moments(random)
    assert spells(sightings(at, home), sightings(traveller, places), TRANSITION, Clock()) == []


def test_a_home_that_both_always_come_back_to_says_nothing_of_clocks():
    random = np.random.default_rng(2)
    one, other = (START + random.uniform(0, 60 * 1440, 200) for _ in range(2))
    home = CITIES[:1] + random.normal(0, 0.02, (200, 2))
    found = spells(sightings(one, home), sightings(other, home[::-1]), TRANSITION, Clock())
    assert not any(spell.offset for spell in found)


def test_a_clock_that_is_set_back_on_the_way():
    first, phone = both(0.0)
    late = first.minutes > START + 3 * 1440 - 100
    shifted = Sightings(first.minutes - 11_666_088.0 * late, first.places, first.sure, first.is_fix)
    order = np.argsort(shifted.minutes)
    found = spells(shifted.part(order), phone, TRANSITION, Clock())
    assert {round(spell.offset) for spell in found} == {0, -11_666_088}


def test_strangers_whose_ways_never_met():
    for seed in range(10):
        random = np.random.default_rng(seed)
        one, places = moments(random)
        other, others = moments(random)
        assert spells(sightings(one, places), sightings(other, others + np.array([0, 40])), TRANSITION, Clock()) == []


def test_who_comes_by_a_day_later_by_a_clock_that_knows_utc_comes_by_a_day_later():
    """Both say what they are ahead of UTC: a guided tour begins at the same time every day."""
    at, places = moments(np.random.default_rng(0), photos=24)
    assert spells(sightings(at + 1440, places), sightings(at, places), TRANSITION, Clock(both_utc=True)) == []
    drifted = spells(sightings(at + 7, places), sightings(at, places), TRANSITION, Clock(both_utc=True))
    assert {spell.offset for spell in drifted} == {7.0}


def test_nothing_to_compare():
    none = sightings(np.zeros(0), np.zeros((0, 2)))
    assert spells(none, both(0.0)[1], TRANSITION, Clock()) == []
    assert spells(both(0.0)[0], none, TRANSITION, Clock()) == []
