"""What may be said of a place that is known within a radius: never more than the radius allows."""

import functools
import math

from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.geo.places import CONTINENTS, place_text, read_data

_, CITY_KM, REGION_KM, COUNTRY_KM, CONTINENT_KM = THRESHOLDS_KM
"""The field's levels: a radius up to one of these tells a place of that level."""

_KM_A_DEGREE = 111.2
_SHIFT = 0.1
"""Rounding moves a point by less than this share of the radius."""


def decimals(radius_km: float) -> int:
    """Of a degree; below 0 for tens of degrees.

    >>> decimals(0.1), decimals(25), decimals(14_301)
    (4, 2, -1)
    """
    farthest = math.sqrt(0.5) * _KM_A_DEGREE  # that rounding to whole degrees moves a point
    return min(7, max(-1, math.ceil(math.log10(farthest / (_SHIFT * max(radius_km, 1e-6))))))


def rounded(lat: float, lon: float, radius_km: float) -> tuple[float, float]:
    """Degrees, as precise as the radius allows."""
    digits = decimals(radius_km)
    return round(lat, digits), round(lon, digits)


def coordinates_text(lat: float, lon: float, radius_km: float) -> str:
    """``-33.86, 151.21`` within 25 km."""
    digits = max(0, decimals(radius_km))
    return ", ".join(f"{value:.{digits}f}" for value in rounded(lat, lon, radius_km))


def place_within(place: dict | None, radius_km: float) -> dict:
    """Those names of a place (schema.PLACE) that hold as far as the radius reaches: the city up to CITY_KM, its distance
    counted, the region up to REGION_KM, the country up to COUNTRY_KM."""
    if not place:
        return {}
    reach = radius_km + (place.get("city_km") or 0)
    limits = {"city": reach <= CITY_KM, "region": radius_km <= REGION_KM}
    country = radius_km <= COUNTRY_KM
    return {name: value for name, value in place.items() if value and limits.get(name, country) and name != "city_km"}


def headline(place: dict | None, radius_km: float) -> str:
    """A place in words: ``Sydney, New South Wales, Australia``, ``Somewhere in Asia``, ``Somewhere on Earth``.

    >>> headline({"country_code": "AU", "country": "Australia", "region": "New South Wales", "city": "Sydney"}, 900)
    'Somewhere in Oceania'
    """
    if radius_km > CONTINENT_KM:
        return "Somewhere on Earth"
    if not place or not place.get("country"):
        return "Open sea" if radius_km <= REGION_KM else "Somewhere at sea or on its coasts"
    text = place_text(dict.fromkeys(("city", "region", "country")) | place_within(place, radius_km))
    if text is None:
        return f"Somewhere in {_continents()[place['country_code']]}"
    return text if radius_km <= REGION_KM else f"Somewhere in {text}"


@functools.cache
def _continents() -> dict[str, str]:
    table = read_data("countries.parquet").select(["country_code", "continent"]).to_pydict()
    return {code: CONTINENTS[continent] for code, continent in zip(*table.values(), strict=True)}
