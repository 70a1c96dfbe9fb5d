import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.geo.distance import haversine_km
from geoloc.geo.precision import coordinates_text, headline, place_within, rounded

SYDNEY = {"country_code": "AU", "country": "Australia", "region": "New South Wales", "city": "Sydney", "city_km": 2.0}


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(0.02, 20_000))
def test_rounding_moves_a_point_by_little_of_its_radius_and_hides_what_is_not_known(lat, lon, radius):
    near = rounded(lat, lon, radius)
    assert (
        haversine_km(lat, lon, *near) <= max(0.1 * radius, 1e-5) + 1e-9 or radius > 7_900
    )  # tens of degrees are the least
    digits = max(len(part.partition(".")[2].rstrip("0")) for part in coordinates_text(lat, lon, radius).split(", "))
    assert 111.2 * 10.0**-digits > radius / 1000 or digits == 0


@pytest.mark.parametrize(
    ("radius", "text", "names"),
    [
        (0.5, "Sydney, New South Wales, Australia", {"city", "region", "country", "country_code"}),
        (23, "Sydney, New South Wales, Australia", {"city", "region", "country", "country_code"}),
        (24, "New South Wales, Australia", {"region", "country", "country_code"}),  # the city is 2 km away
        (200, "New South Wales, Australia", {"region", "country", "country_code"}),
        (201, "Somewhere in Australia", {"country", "country_code"}),
        (750, "Somewhere in Australia", {"country", "country_code"}),
        (2500, "Somewhere in Oceania", set()),
        (14_301, "Somewhere on Earth", set()),
    ],
)
def test_a_place_is_told_as_far_as_the_radius_reaches(radius, text, names):
    assert headline(SYDNEY, radius) == text
    assert place_within(SYDNEY, radius).keys() == names


def test_the_sea_is_told_too():
    nowhere = dict.fromkeys(SYDNEY)
    assert headline(nowhere, 10) == "Open sea"
    assert headline(None, 500) == "Somewhere at sea or on its coasts"
    assert headline(None, 10_000) == "Somewhere on Earth"
