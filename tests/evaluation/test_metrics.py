import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from geoloc.evaluation.metrics import Judged, measure
from geoloc.evaluation.protocol import Protocol


def one(km, **options):
    return measure([Judged("run", np.array(km, float))], Protocol(), **options)[0]


def test_known_answers():
    result = one([0.5, 1.0, 24.9, 25.0, 199, 3000, np.inf, np.inf])
    values = {name: figure.value for name, figure in result.figures.items()}
    assert (result.n, result.missing) == (8, 2)
    assert [values[f"acc_{t}km"] for t in (1, 25, 200, 750, 2500)] == [12.5, 37.5, 62.5, 62.5, 62.5]
    assert values["median_km"] == pytest.approx((24.9 + 25.0) / 2)
    assert values["mean_km"] == pytest.approx(np.mean([0.5, 1, 24.9, 25, 199, 3000]))


def test_nobody_answered():
    result = one([np.inf, np.inf])
    assert result.figures["acc_2500km"].value == 0
    assert np.isnan(result.figures["median_km"].value)
    assert np.isnan(result.figures["mean_km"].value)


@given(st.lists(st.one_of(st.floats(0, 20_000), st.just(np.inf)), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_figures_agree_with_numpy_and_lie_in_their_intervals(km):
    result = one(km)
    km = np.array(km)
    answered = km[np.isfinite(km)]
    assert result.figures["acc_25km"].value == pytest.approx(100 * (km < 25).mean())
    if len(answered):
        assert result.figures["median_km"].value == pytest.approx(np.median(answered))
        assert result.figures["mean_km"].value == pytest.approx(answered.mean())
    for name in ("acc_1km", "acc_2500km", "geoguessr"):
        figure = result.figures[name]
        assert figure.low - 1e-9 <= figure.value <= figure.high + 1e-9


def test_the_interval_is_the_binomial_one(random):
    km = np.where(random.uniform(size=2_000) < 0.3, 10.0, 5_000.0)
    figure = one(km).figures["acc_25km"]
    half = 100 * 1.96 * np.sqrt(0.3 * 0.7 / 2_000)
    assert (figure.high - figure.low) / 2 == pytest.approx(half, rel=0.15)


def test_photos_of_one_author_count_once(random):
    """20 authors, each always right or always wrong, with 100 photos: as uncertain as 20 photos."""
    authors = np.repeat(np.arange(20), 100)
    km = np.where(authors % 2 == 0, 10.0, 5_000.0)
    alone, together = one(km).figures["acc_25km"], one(km, groups=authors).figures["acc_25km"]
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(10, rel=0.25)


def test_runs_are_compared_photo_by_photo(random):
    """Two runs that differ on few photos: the difference is surer than either accuracy."""
    km = np.where(random.uniform(size=1_000) < 0.5, 10.0, 5_000.0)
    better = km.copy()
    better[np.flatnonzero(km > 25)[:30]] = 5.0
    first, second = measure([Judged("a", km), Judged("b", better)], Protocol())
    difference, own = second.against["acc_25km"], second.figures["acc_25km"]
    assert not first.against
    assert difference.value == pytest.approx(3.0)
    assert difference.low > 0
    assert difference.high - difference.low < (own.high - own.low) / 2


def test_shares_count_where_they_are_known():
    shares = {"city_acc": np.array([1.0, 0.0, np.nan, np.nan])}
    result = measure([Judged("run", np.array([1.0, 2, 3, 4]), shares)], Protocol())[0]
    assert result.figures["city_acc"].value == 50
