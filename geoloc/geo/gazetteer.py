"""Where places are that are told by their names: cities of at least 5,000 people (GeoNames), by their country or region."""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa

from geoloc.geo.places import read_data

_ALSO = {
    "US": ("usa", "us", "u.s", "u.s.a", "united states of america", "america"),
    "GB": ("uk", "u.k", "great britain", "britain", "england", "scotland", "wales", "northern ireland"),
    "AE": ("uae",),
    "CZ": ("czech republic",),
    "KR": ("south korea", "republic of korea"),
    "NL": ("holland", "the netherlands"),
    "RU": ("russian federation",),
    "TR": ("turkey", "turkiye"),
}
"""Other names of countries than the data's, by their codes."""
LONGEST = 5
"""Words of a name."""


class Gazetteer:
    def __init__(self) -> None:
        places, countries = read_data("places.parquet"), read_data("countries.parquet")
        self._countries = {_plain(name): code for code, name in _columns(countries, "country_code", "country")}
        self._countries |= {name: code for code, names in _ALSO.items() for name in names}
        self._cities: dict[str, list[tuple[str, str, float, float]]] = defaultdict(list)  # region, country, lat, lon
        for city, region, code, lat, lon in _columns(places, "city", "region", "country_code", "lat", "lon"):
            self._cities[_plain(city)].append((_plain(region or ""), code, lat, lon))

    def find(self, text: str) -> tuple[float, float] | None:
        """Coordinates, degrees, of the first ``city, country``, ``city, region, country`` or ``city, region`` in a text.

        None where there is no such place, or several: a city's name alone is not enough.

        >>> gazetteer().find("It looks like Lyon, France.") is not None, gazetteer().find("It is Springfield, USA")
        (True, None)
        """
        for piece in re.split(r"""[\n;:!?()\[\]{}"*`]|\.(?=\s|$)""", text):
            names = [" ".join(name.split()) for name in piece.split(",")]
            for at in range(1, len(names)):
                code = self._country(names[at])
                asked = [(names[at - 2], names[at - 1])] if code and at > 1 else []
                if code or names[at]:
                    asked.append((names[at - 1], None if code else names[at]))
                for city, region in asked:
                    if found := self._city(city, region, code):
                        return found
        return None

    def _country(self, name: str) -> str | None:
        return next((self._countries[first] for first in _beginnings(name) if first in self._countries), None)

    def _city(self, name: str, region: str | None, code: str | None) -> tuple[float, float] | None:
        """By the last words, as many as can be. A region decides among cities of a country, and stands for one where it must."""
        words = name.split()
        endings = (_plain(" ".join(words[-count:])) for count in range(min(LONGEST, len(words)), 0, -1))
        known = next((self._cities[ending] for ending in endings if ending in self._cities), [])
        fitting = [city for city in known if code in (None, city[1])]
        if region and (code is None or len(fitting) > 1):
            names = set(_beginnings(region))
            fitting = [city for city in fitting if city[0] in names]
        return fitting[0][2:] if len(fitting) == 1 else None


@functools.cache
def gazetteer() -> Gazetteer:
    """The process's own copy."""
    return Gazetteer()


def _columns(table: pa.Table, *names: str) -> Iterator[tuple]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _beginnings(name: str) -> Iterator[str]:
    """The first words of what comes before more of a sentence, the most of them first."""
    words = name.split()
    return (_plain(" ".join(words[:count])) for count in range(min(LONGEST, len(words)), 0, -1))


def _plain(name: str) -> str:
    """Without case, accents and what is round a name."""
    decomposed = unicodedata.normalize("NFD", name.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).strip(" .'-").removeprefix("the ")
