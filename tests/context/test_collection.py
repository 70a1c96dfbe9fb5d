"""Photos of a collection give each other places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.context.chains import Evidence, Order, vectors_or_zeros
from geoloc.context.collection import Collection, hidden, shares_of
from geoloc.context.defaults import for_minutes
from geoloc.context.fitting import near_share
from geoloc.context.locating import locate_collection
from geoloc.geo.distance import haversine_km

PARIS, LYON, SYDNEY, UNKNOWN = (48.86, 2.35), (45.76, 4.84), (-33.87, 151.21), (np.nan, np.nan)


def collection(positions, known, estimates, chain=None, timed=True) -> Collection:
    estimates = np.array(estimates, float)[:, None]
    return Collection(
        np.zeros(len(positions), int) if chain is None else np.array(chain),
        np.array(positions, float),
        timed,
        np.array(known, float),
        estimates,
        (~np.isnan(estimates[..., 0])).astype(float),
    )


def km(together, row, place) -> float:
    return float(haversine_km(together.lat[row], together.lon[row], *place))


def test_a_photo_between_two_fixes_is_there_whatever_it_looks_like():
    together = locate_collection(collection([0, 3, 6], [PARIS, UNKNOWN, PARIS], [UNKNOWN, SYDNEY, UNKNOWN]))
    assert km(together, 1, PARIS) < 0.01
    assert together.source[1] in (0, 2)
    assert together.radius_km[1] < 100
    assert together.within[1, 3] > 0.8
    assert np.isnan(together.radius_km[[0, 2]]).all()


def test_years_later_a_photo_is_where_it_looks_like():
    together = locate_collection(collection([0, 2e6], [PARIS, UNKNOWN], [UNKNOWN, SYDNEY]))
    assert km(together, 1, SYDNEY) < 0.01
    assert together.source[1] == 1


def test_who_agrees_outvotes_who_does_not():
    """Four of five photos of an afternoon look like Lyon."""
    looks = [LYON, LYON, SYDNEY, LYON, LYON]
    together = locate_collection(collection([0, 20, 40, 60, 80], [UNKNOWN] * 5, looks))
    assert all(km(together, row, LYON) < 0.01 for row in range(5))


def test_a_train_ride_is_not_ignored():
    """Photoprism's complaint: all of a day where its morning was."""
    known = [PARIS, UNKNOWN, UNKNOWN, LYON]
    together = locate_collection(collection([0, 10, 290, 300], known, [UNKNOWN, SYDNEY, SYDNEY, UNKNOWN]))
    assert km(together, 1, PARIS) < 0.01
    assert km(together, 2, LYON) < 0.01


def test_a_fix_that_everything_contradicts_is_doubted_and_stays():
    known = [PARIS, PARIS, SYDNEY, PARIS, PARIS]
    together = locate_collection(collection([0, 2, 4, 6, 8], known, [UNKNOWN] * 5))
    assert together.doubt[2] > 0.9
    assert (together.doubt[[0, 1, 3, 4]] < 0.2).all()
    assert (together.lat[2], together.lon[2]) == SYDNEY


def test_alone_it_keeps_its_first_candidate():
    one = collection([0], [UNKNOWN], [LYON])
    many = np.array([[PARIS, LYON, (45.77, 4.85), (45.75, 4.83)]])
    together = locate_collection(Collection(one.chain, one.position, True, one.known, many, np.full((1, 4), 0.25)))
    assert (together.lat[0], together.lon[0]) == PARIS


def test_nothing_is_said_where_nothing_is_known():
    together = locate_collection(collection([0, 1, 0], [UNKNOWN] * 3, [UNKNOWN, UNKNOWN, LYON], chain=[0, 0, 1]))
    assert np.isnan(together.lat[:2]).all()
    assert together.source.tolist() == [-1, -1, 2]
    assert np.isnan(together.within[:2]).all()


@pytest.mark.parametrize("positions", [[np.nan] * 4, [5.0] * 4, [0, 0, np.nan, np.nan]])
def test_without_order_neighbours_still_help(positions):
    together = locate_collection(collection(positions, [LYON, LYON, UNKNOWN, LYON], [UNKNOWN] * 4))
    assert km(together, 2, LYON) < 0.01


def test_agreeing_with_a_fix_makes_no_photo_less_sure():
    fix, unknown = (
        collection([0, 3], [PARIS, UNKNOWN], [UNKNOWN, PARIS]),
        collection([0, 3], [PARIS, UNKNOWN], [UNKNOWN] * 2),
    )
    both, by_fix = locate_collection(fix), locate_collection(unknown)
    assert both.source[1] == by_fix.source[1] == 0
    assert both.radius_km[1] <= 1.01 * by_fix.radius_km[1]


def test_who_is_years_away_has_no_say():
    together = locate_collection(collection([0, 3, 2e6], [PARIS, UNKNOWN, UNKNOWN], [UNKNOWN, LYON, LYON]))
    assert together.heard.tolist() == [True, True, False]


def test_other_chains_change_nothing():
    one = _random(5, 30)
    far = Collection(
        np.array([-1, -1]),
        np.array([0.0, 1e17]),
        True,
        np.array([LYON, LYON]),
        np.full((2, 1, 2), np.nan),
        np.zeros((2, 1)),
    )
    values = (
        np.concatenate([getattr(far, name), value]) if isinstance(value, np.ndarray) else value
        for name, value in vars(one).items()
    )
    alone, beside = locate_collection(one), locate_collection(Collection(*values))
    np.testing.assert_allclose(beside.within[2:], alone.within, atol=0.02, equal_nan=True)


def test_scores_that_are_no_numbers_are_no_scores():
    present = np.ones((2, 2), bool)
    shares = shares_of(np.array([[0.4, -np.inf], [0.4, 0.1]]), present)
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(1), 1)


def test_no_photos_at_all():
    nothing = Collection(np.zeros(0, int), np.zeros(0), True, np.zeros((0, 2)), np.zeros((0, 1, 2)), np.zeros((0, 1)))
    assert locate_collection(nothing).lat.shape == (0,)


def _random(seed: int, n: int) -> Collection:
    random = np.random.default_rng(seed)
    lat, lon = 45 + np.cumsum(random.normal(0, 0.3, n)), 5 + np.cumsum(random.normal(0, 0.3, n))
    places = np.stack([lat, lon], axis=1)
    wrong = random.random(n) < 0.4
    estimates = np.where(wrong[:, None], random.uniform(-60, 60, (n, 2)), places + random.normal(0, 0.05, (n, 2)))
    known = np.where(random.random(n)[:, None] < 0.2, places, np.nan)
    return collection(np.cumsum(random.exponential(60, n)), known, estimates, random.integers(0, 3, n))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60))
def test_the_order_of_rows_does_not_matter(seed, n):
    one = _random(seed, n)
    rows = np.random.default_rng(seed).permutation(n)
    other = Collection(*(value[rows] if isinstance(value, np.ndarray) else value for value in vars(one).values()))
    a, b = locate_collection(one), locate_collection(other)
    np.testing.assert_allclose(a.lat[rows], b.lat, equal_nan=True)
    np.testing.assert_allclose(a.radius_km[rows], b.radius_km, rtol=1e-3, equal_nan=True)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_answers_are_places_that_somebody_named(seed):
    one = _random(seed, 40)
    together = locate_collection(one)
    named = np.concatenate([one.known, one.candidates[:, 0]])
    off = haversine_km(together.lat[:, None], together.lon[:, None], named[:, 0], named[:, 1])
    assert (np.nanmin(off, axis=1) < 0.01).all()
    assert (np.diff(together.within[np.isnan(one.known[:, 0])]) >= 0).all()


def test_hidden_places_are_found_again():
    one = _random(3, 200)
    rows = np.flatnonzero(~np.isnan(one.known[:, 0]))[::2]
    together = locate_collection(hidden(one, rows))
    assert np.median(haversine_km(together.lat[rows], together.lon[rows], *one.known[rows].T)) < 150


@pytest.mark.parametrize("share", [0.15, 0.4, 0.75])
def test_a_systems_accuracy_is_known_without_any_truth(share):
    random = np.random.default_rng(1)
    n = 3000
    steps = np.where(random.random(n)[:, None] < 0.1, random.uniform(-40, 40, (n, 2)), random.normal(0, 0.01, (n, 2)))
    places = np.clip(np.cumsum(steps, axis=0), -80, 80)
    right = random.random(n) < share
    estimates = np.where(right[:, None], places + random.normal(0, 0.02, (n, 2)), random.uniform(-80, 80, (n, 2)))
    order = Order.of(np.zeros(n, int), np.arange(n) * 5.0, 1, 1)
    evidence = Evidence(
        order.chain,
        order.log_gap,
        np.zeros((n, 3)),
        vectors_or_zeros(*estimates.T)[:, None],
        np.ones((n, 1)),
    )
    model = for_minutes()
    assert near_share(evidence, model.transition, model.emission) == pytest.approx(share, abs=0.12)


def test_scores_of_any_scale_are_shares():
    present = np.array([[True, True, True], [True, False, False], [False, False, False]])
    scores = np.array([[0.9, 0.5, 0.1], [0.7, np.nan, np.nan], [np.nan] * 3])
    shares = shares_of(scores, present)
    assert shares.sum(1).tolist() == [pytest.approx(1), 1, 0]
    assert shares[0, 0] > shares[0, 1] > shares[0, 2] > 0
    np.testing.assert_allclose(shares_of(scores * 100 - 7, present), shares)
