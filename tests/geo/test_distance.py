import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from geoloc.geo.distance import geodesic_km, haversine_km, unit_vectors, valid_coordinates

latitudes, longitudes = st.floats(-90, 90), st.floats(-180, 180)


@pytest.mark.parametrize(
    ("a", "b", "geodesic", "sphere"),
    [
        ((46.167286, 7.099698), (44.173955, 6.697883), 223.768850, 223.874424),
        ((0, 0), (0.2255, 0), 24.934500, 25.074456),
    ],
)
def test_worked_examples(a, b, geodesic, sphere):
    assert geodesic_km(*a, *b) == pytest.approx(geodesic, abs=1e-5)
    assert haversine_km(*a, *b, radius_km=6371) == pytest.approx(sphere, abs=1e-5)


@given(latitudes, longitudes, latitudes, longitudes)
def test_haversine_is_projs_distance_on_a_sphere(lat1, lon1, lat2, lon2):
    sphere = Geod(a=6371008.8, b=6371008.8)
    assert haversine_km(lat1, lon1, lat2, lon2) == pytest.approx(sphere.inv(lon1, lat1, lon2, lat2)[2] / 1000, abs=1e-3)


@given(latitudes, longitudes, latitudes, longitudes)
def test_the_two_agree_within_the_earths_flattening(lat1, lon1, lat2, lon2):
    assert geodesic_km(lat1, lon1, lat2, lon2) == pytest.approx(
        haversine_km(lat1, lon1, lat2, lon2), rel=0.006, abs=0.01
    )


def test_arrays_broadcast_and_unknown_stays_unknown():
    km = haversine_km(np.array([[0.0], [np.nan]]), 0.0, 0.0, np.array([0.0, 180.0, 1.0]))
    assert km.shape == (2, 3)
    assert np.isnan(km[1]).all()
    assert np.isnan(geodesic_km(np.nan, 0, 0, 0))


@given(latitudes, longitudes)
def test_nearest_in_space_is_nearest_on_the_sphere(lat, lon):
    chord = np.linalg.norm(unit_vectors(lat, lon) - unit_vectors(10.0, 20.0))
    assert 2 * 6371.0088 * np.arcsin(min(chord / 2, 1)) == pytest.approx(haversine_km(lat, lon, 10, 20), abs=1e-3)


def test_valid_coordinates():
    lat = [0, 0, 90, -90, 90.001, 45, np.nan, 1e-9]
    lon = [0, 1, 180, -180, 0, 180.01, 5, 0]
    assert valid_coordinates(lat, lon).tolist() == [False, True, True, True, False, False, False, True]
