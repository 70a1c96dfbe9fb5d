"""Names for coordinates, offline: country by polygon (Natural Earth), city and region by nearest place (GeoNames)."""

import functools
from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from scipy.spatial import cKDTree

from geoloc.geo.distance import EARTH_RADIUS_KM, unit_vectors
from geoloc.schema import PLACE

CITY_KM = 100.0
"""A place farther away than this names no city."""
COAST_KM = 25.0
"""A point off every polygon, but this near to a place, is on that place's coast; farther out it is open sea."""
CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
"""Names of the codes in countries.parquet."""
_NEIGHBOURS = 8


class Places:
    """Reverse geocoding with everything in memory; about 10 MB, loaded in a fraction of a second."""

    def __init__(self) -> None:
        countries, places = (read_data(name) for name in ("countries.parquet", "places.parquet"))
        codes = countries["country_code"].to_pylist()
        self._names = dict(zip(codes, countries["country"].to_pylist(), strict=True))
        drawn = countries.filter(pc.is_valid(countries["outline"]))
        self._polygons, owner = shapely.get_parts(shapely.from_wkb(drawn["outline"].to_numpy()), return_index=True)
        self._polygon_code = np.array(drawn["country_code"].to_pylist(), object)[owner]
        shapely.prepare(self._polygons)
        self._polygon_tree = shapely.STRtree(self._polygons)

        self._city = np.array(places["city"].to_pylist(), object)
        self._region = np.array(places["region"].to_pylist(), object)
        self._code = np.array(places["country_code"].to_pylist(), object)
        # Overseas territories with a code of their own that Natural Earth draws as part of another country, or not at all.
        self._territory = ~np.isin(self._code.astype(str), np.unique(self._polygon_code.astype(str)))
        self._place_tree = cKDTree(unit_vectors(places["lat"].to_numpy(), places["lon"].to_numpy()))

    def lookup(self, lat, lon) -> pa.StructArray:
        """Places (schema.PLACE) of coordinates (n,), degrees. Null where a coordinate is NaN.

        ``country`` is null on the open sea; ``city`` and ``region`` are null farther than CITY_KM from any place
        of that country.

        >>> places().lookup([48.8566, np.nan], [2.3522, np.nan]).field("country").to_pylist()
        ['France', None]
        """
        lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        known = np.isfinite(lat) & np.isfinite(lon)
        lat, lon = np.where(known, lat, 0.0), np.where(known, lon, 0.0)
        lon = (lon + 180) % 360 - 180
        chord, nearest = self._place_tree.query(unit_vectors(lat, lon), k=_NEIGHBOURS)
        km = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))

        country = self._by_polygon(lat, lon)
        coast = (country == None) & (km[:, 0] <= COAST_KM)  # noqa: E711 (elementwise)
        overseas = self._territory[nearest[:, 0]] & (km[:, 0] <= CITY_KM)
        country = np.where(coast | overseas, self._code[nearest[:, 0]], country)

        same = (self._code[nearest] == country[:, None]) & (km <= CITY_KM)
        pick = np.argmax(same, axis=1)
        found = same.any(axis=1)
        row = np.arange(len(lat))
        place = nearest[row, pick]
        fields = {
            "country_code": country,
            "country": [self._names.get(code) for code in country],
            "region": np.where(found, self._region[place], None),
            "city": np.where(found, self._city[place], None),
            "city_km": np.where(found, km[row, pick], None),
        }
        arrays = [pa.array(fields[f.name], f.type, from_pandas=True) for f in PLACE]
        return pa.StructArray.from_arrays(arrays, fields=list(PLACE), mask=pa.array(~known))

    def _by_polygon(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        country = np.full(len(lat), None, object)
        points, polygons = self._polygon_tree.query(shapely.points(lon, lat))
        order = np.argsort(polygons, kind="stable")
        points, polygons = points[order], polygons[order]
        for group in np.split(np.arange(len(points)), np.flatnonzero(np.diff(polygons)) + 1):
            if len(group):
                polygon, at = polygons[group[0]], points[group]
                inside = at[shapely.intersects_xy(self._polygons[polygon], lon[at], lat[at])]
                country[inside] = self._polygon_code[polygon]
        return country


@functools.cache
def places() -> Places:
    """The process's own copy."""
    return Places()


def read_data(name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader((resources.files("geoloc.geo.data") / name).read_bytes()))


def place_text(place: dict | None) -> str | None:
    """City, region and country in one line."""
    names = [place[field] for field in ("city", "region", "country") if place and place[field]]
    return ", ".join(dict.fromkeys(names)) or None
