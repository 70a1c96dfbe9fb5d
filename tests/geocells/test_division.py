import itertools

import numpy as np
import pytest

from geoloc.geo.cells import cell_tokens
from geoloc.geo.distance import geodesic_km, haversine_km
from geoloc.geo.partition import partition
from geoloc.geocells.division import Division
from geoloc.geocells.methods import GeocellOptions


@pytest.fixture
def places(random) -> tuple[np.ndarray, np.ndarray]:
    towns = np.stack([random.uniform(-60, 60, 30), random.uniform(-180, 180, 30)])
    at = random.integers(0, 30, 2000)
    lat, lon = towns[:, at] + random.normal(0, 0.5, (2, 2000))
    return lat, (lon + 180) % 360 - 180


def test_places_of_a_hierarchy_are_its_finest_cells(places):
    options = GeocellOptions(most=(400, 100, 30), fewest=5)
    division, hierarchy = Division.of(*places, options), partition(*places, (400, 100, 30), 5)
    np.testing.assert_array_equal(division.lineage, hierarchy.lineage())
    np.testing.assert_allclose(division.lat, hierarchy.finest.lat, atol=1e-9)
    np.testing.assert_allclose(division.lon, hierarchy.finest.lon, atol=1e-9)
    np.testing.assert_array_equal(division.place, hierarchy.finest.find(*places))


def test_crossing_partitions_tell_more_places_apart(places):
    options = GeocellOptions(most=(120, 100, 80), fewest=5, turned=True)
    division = Division.of(*places, options)
    cells = division.cells(*places)
    inside = (cells >= 0).all(axis=1)
    combinations = {tuple(row) for row in cells[inside].tolist()}
    assert len(division.lineage) == len(combinations) > max(len(one) for one in division.partitions)
    assert {tuple(row) for row in division.lineage.tolist()} == combinations
    for row in np.flatnonzero(inside)[:200]:
        assert division.lineage[division.place[row]].tolist() == cells[row].tolist()
    assert (division.place[~inside] == -1).all()
    tokens = [set(cell_tokens(one.ids)) for one in division.partitions]
    assert all(a != b for a, b in itertools.combinations(tokens, 2))


@pytest.mark.parametrize("turned", [False, True])
def test_nine_of_ten_photos_lie_within_a_places_extent(places, turned):
    division = Division.of(*places, GeocellOptions(most=(100, 80), fewest=5, turned=turned))
    for place in range(len(division.lat)):
        lat, lon = (axis[division.place == place] for axis in places)
        km = np.sort(haversine_km(division.lat[place], division.lon[place], lat, lon))
        assert km[int(np.ceil(0.9 * len(km))) - 1] == pytest.approx(division.extent_km[place], abs=1e-6)


def test_turning_the_globe_changes_no_distance(places):
    """Cells of a turned partition hold photos that are near each other, and nothing is lost."""
    division = Division.of(*places, GeocellOptions(most=(60, 50), fewest=0, turned=True))
    assert (division.cells(*places) >= 0).all()
    second = division.cells(*places)[:, 1]
    for cell in range(10):
        lat, lon = (axis[second == cell] for axis in places)
        towns = geodesic_km(lat[0], lon[0], lat, lon)
        assert len(lat) <= 50
        assert np.median(towns) < 3000
