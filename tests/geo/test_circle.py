import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st

from geoloc.geo.circle import circle
from geoloc.geo.distance import haversine_km

POINTS = np.random.default_rng(0).normal(size=(2000, 3))
LAT = np.degrees(np.arcsin(POINTS[:, 2] / np.linalg.norm(POINTS, axis=1)))
LON = np.degrees(np.arctan2(POINTS[:, 1], POINTS[:, 0]))


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(1, 21_000))
@example(48.9, 2.35, 100.0)
@example(-77.0, 179.9, 2500.0)
@example(89.0, 0.0, 300.0)
@example(-16.2, 35.3, 11_033.0)
@example(10.0, -170.0, 15_000.0)
@example(0.0, 0.0, 10_007.0)
@example(-90.0, 0.0, 316.0)
def test_a_circle_holds_what_is_near_enough(lat, lon, radius):
    area = circle(lat, lon, radius)
    assert area.is_valid
    assert shapely.box(-180, -90, 180, 90).covers(area)
    away = haversine_km(lat, lon, LAT, LON)
    holds = shapely.contains_xy(area, LON, LAT)
    assert holds[away < 0.98 * radius - 150].all()
    assert not holds[away > 1.02 * radius + 150].any()


def test_a_small_circle_is_one_piece_and_as_wide_as_it_should_be():
    [piece] = circle(60, 10, 111.195).geoms
    assert piece.bounds == pytest.approx((8, 59, 12, 61), abs=0.03)


def test_a_circle_at_the_antimeridian_is_two_pieces():
    west, east = sorted(circle(0, 179.5, 111.195).geoms, key=lambda piece: piece.bounds[0])
    assert west.bounds == pytest.approx((-180, -0.87, -179.5, 0.87), abs=0.03)
    assert east.bounds == pytest.approx((178.5, -1, 180, 1), abs=0.03)
