import numpy as np
import pytest

from geoloc.geo.places import place_text, places


def place(lat, lon):
    return places().lookup([lat], [lon])[0].as_py()


@pytest.mark.parametrize(
    ("lat", "lon", "country", "city"),
    [
        (48.8584, 2.2945, "France", "Paris 16 Passy"),
        (40.6892, -74.0445, "United States", None),
        (-33.8568, 151.2153, "Australia", None),
        (1.29, 103.85, "Singapore", "Singapore"),
        (-21.11, 55.5, "Reunion", "Cilaos"),  # a territory that Natural Earth draws as France
        (78.2, 15.6, "Svalbard and Jan Mayen", "Longyearbyen"),
        (42.67, 21.17, "Kosovo", None),
        (-80.0, 60.0, "Antarctica", None),
        (-90.0, 0.0, "Antarctica", None),
    ],
)
def test_known_places(lat, lon, country, city):
    found = place(lat, lon)
    assert found["country"] == country
    if city:
        assert found["city"] == city


def test_both_sides_of_the_antimeridian():
    for lon in (179.99, -179.99):
        assert place(-16.8, lon)["country"] == "Fiji"
    for lon in (178.0, -178.0, 182.0):
        assert place(66.0, lon)["country"] == "Russia"
    for lat in (68.9, 65.2, -16.8):  # no outline may span the world between the two sides
        assert place(lat, -35.0)["country"] in (None, "Greenland")


def test_open_sea_pole_and_unknown():
    for lat, lon in ((0.1, -30.0), (90.0, 0.0), (-60.0, 0.0)):
        assert place(lat, lon) == dict.fromkeys(["country_code", "country", "region", "city", "city_km"])
    assert place(np.nan, 5.0) is None


def test_a_shore_belongs_to_its_coast_and_a_border_town_to_its_own_country():
    assert place(41.3740, 2.2100)["country"] == "Spain"  # 2 km off Barcelona
    found = place(47.5606, 7.6200)  # Basel, with German and French places near
    assert (found["country"], found["country_code"]) == ("Switzerland", "CH")
    assert found["region"].startswith("Basel")


def test_many_at_once_are_as_one_by_one(random):
    lat, lon = np.degrees(np.arcsin(random.uniform(-1, 1, 200))), random.uniform(-180, 180, 200)
    assert places().lookup(lat, lon).to_pylist() == [place(a, o) for a, o in zip(lat, lon, strict=True)]


def test_words():
    assert place_text({"city": "Luxembourg", "region": "Luxembourg", "country": "Luxembourg"}) == "Luxembourg"
    assert place_text({"city": "Rome", "region": None, "country": "Italy"}) == "Rome, Italy"
    assert place_text({"city": None, "region": None, "country": None}) is None
    assert place_text(None) is None
