import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
import s2geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import UsageError
from geoloc.geo.cells import cell_tokens, levels
from geoloc.geo.distance import geodesic_km
from geoloc.geo.partition import (
    GEOSURGE,
    Hierarchy,
    Partition,
    partition,
    read_hierarchy,
    read_published,
    write_partitions,
)


def divided(places: list[tuple[float, float]], most: int, fewest: int, start: int) -> dict[str, int]:
    """Cells and their photos, by the S2 library, one photo after the other."""
    leaves = [s2geometry.S2CellId(s2geometry.S2LatLng.FromDegrees(*place)) for place in places]
    found, waiting = {}, {}
    for leaf in leaves:
        waiting.setdefault(leaf.parent(start).ToToken(), []).append(leaf)
    while waiting:
        token, inside = waiting.popitem()
        level = s2geometry.S2CellId.FromToken(token).level()
        if len(inside) > most and level < 30:
            for leaf in inside:
                waiting.setdefault(leaf.parent(level + 1).ToToken(), []).append(leaf)
        elif len(inside) > fewest:
            found[token] = len(inside)
    return found


def counts(cells: Partition) -> dict[str, int]:
    return dict(zip(cell_tokens(cells.ids).tolist(), cells.count.tolist(), strict=True))


@pytest.fixture
def places(random) -> np.ndarray:
    """Towns and what lies between; (n, 2)."""
    towns = np.stack([np.degrees(np.arcsin(random.uniform(-1, 1, 40))), random.uniform(-180, 180, 40)], axis=1)
    near = towns[random.choice(40, 3000, p=random.dirichlet(np.ones(40)))] + random.normal(0, 0.3, (3000, 2))
    return np.stack([np.clip(near[:, 0], -90, 90), (near[:, 1] + 180) % 360 - 180], axis=1)


@pytest.mark.parametrize("start", [0, 2])
def test_cells_are_quartered_by_their_photos(places, start):
    found = partition(*places.T, most=(500, 100, 20), fewest=8, start_level=start)
    for cells, most in zip(found.partitions, (500, 100, 20), strict=True):
        assert counts(cells) == divided(places.tolist(), most, 8, start)


coordinates = st.tuples(
    st.one_of(st.floats(-90, 90), st.floats(10, 10.01)), st.one_of(st.floats(-180, 180), st.floats(20, 20.01))
)


@settings(deadline=None)
@given(
    st.lists(coordinates, min_size=5, max_size=200),
    st.lists(st.integers(3, 100), min_size=1, max_size=4, unique=True),
    st.randoms(use_true_random=False),
)
def test_each_cell_is_in_one_of_every_coarser_partition(places, most, shuffle):
    """In whatever order the photos come."""
    most = sorted(most, reverse=True)
    if not divided(places, most[-1], 2, 2):
        with pytest.raises(UsageError, match="no cell has more than 2"):
            partition(*np.array(places).T, most, fewest=2)
        return
    found = partition(*np.array(places).T, most, fewest=2)
    for (above, below), parents in zip(itertools.pairwise(found.partitions), found.parents, strict=True):
        for cell, parent in zip(below.ids.tolist(), parents.tolist(), strict=True):
            cell = s2geometry.S2CellId(cell)
            containing = [n for n, other in enumerate(above.ids.tolist()) if s2geometry.S2CellId(other).contains(cell)]
            assert containing == [parent]
    lineage = found.lineage()
    assert lineage.shape == (len(found.finest), len(most))
    shuffle.shuffle(places)
    again = partition(*np.array(places).T, most, fewest=2)
    assert [counts(cells) for cells in again.partitions] == [counts(cells) for cells in found.partitions]


def test_a_place_is_found_in_its_cell(places):
    cells = partition(*places.T, most=(100,), fewest=8).finest
    found = cells.find(*places.T)
    assert np.bincount(found[found >= 0], minlength=len(cells)).tolist() == cells.count.tolist()
    assert cells.find(cells.lat, cells.lon).tolist() == list(range(len(cells)))  # a mean is in its cell
    assert cells.find(np.array([-89.9]), np.array([11.0])).tolist() == [-1]


def test_a_cells_place_is_the_mean_of_its_photos_also_at_the_pole_and_the_date_line():
    for places, expected in (
        ([(90, 0), (89.999, 10), (89.999, 80), (89.999, 45)], (89.99925, 45)),
        ([(10, 179.9), (10, -179.9)], (10, 180)),
    ):
        cells = partition(*np.array(places, float).T, most=(9,), fewest=1, start_level=0).finest
        assert geodesic_km(cells.lat[0], cells.lon[0], *expected) < 0.1


def test_all_photos_at_one_spot_are_one_leaf():
    cells = partition(np.full(200, 48.85), np.full(200, 2.35), most=(100,), fewest=50).finest
    assert (cells.count.tolist(), levels(cells.ids).tolist()) == ([200], [30])


@pytest.mark.parametrize(
    ("most", "match"),
    [((100,), "no cell has more than 50 of the 20 photos"), ((100, 100), "must fall"), ((40,), "stay above 50")],
)
def test_what_cannot_be_divided(most, match):
    with pytest.raises(UsageError, match=match):
        partition(np.linspace(-80, 80, 20), np.zeros(20), most)


def test_a_hierarchy_is_a_parquet_file(places, tmp_path):
    found = partition(*places.T, most=(500, 100, 20), fewest=8)
    (tmp_path / "cells.parquet").write_bytes(write_partitions(found.partitions, found.parents))
    table = pq.read_table(tmp_path / "cells.parquet")
    assert table.column_names == ["level", "token", "count", "lat", "lon", "parent"]
    parents = {(row["level"], row["token"]): row["parent"] for row in table.to_pylist()}
    for (level, token), parent in parents.items():
        if level:
            assert s2geometry.S2CellId.FromToken(parent).contains(s2geometry.S2CellId.FromToken(token))
            assert (level - 1, parent) in parents
    again = read_hierarchy((tmp_path / "cells.parquet").read_bytes(), "--cells x")
    np.testing.assert_array_equal(again.lineage(), found.lineage())
    assert [counts(cells) for cells in again.partitions] == [counts(cells) for cells in found.partitions]
    with pytest.raises(UsageError, match="--cells x: is no Parquet file of cells"):
        read_hierarchy(b"PAR1", "--cells x")


def test_partitions_of_other_photos_are_no_hierarchy(places):
    here = partition(*places.T, most=(100,), fewest=8).finest
    there = partition(-places[:, 0], places[:, 1], most=(20,), fewest=8).finest
    with pytest.raises(UsageError, match="lie in none of the"):
        Hierarchy.of([here, there])


PUBLISHED = """class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean
0,8744,3376,39.28162046949048,-107.94343695171831
1,364,2728,35.9593396631232,108.13288446407641
2,47e6b,2000,49.1,2.1
"""


def test_a_published_table_is_read():
    cells = read_published(PUBLISHED.encode(), "--cells x")
    assert counts(cells) == {"8744": 3376, "364": 2728, "47e6b": 2000}
    assert cells.find(np.array([39.28]), np.array([-107.94])).tolist() == [
        cell_tokens(cells.ids).tolist().index("8744")
    ]


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ("47e6b", "4.70E+07", "'4.70E\\+07'"),
        ("8744", "8744.0", "'8744.0'"),
        ("364", "364000000000000", "1 of 3 tokens"),
        ("364", "47e6b", "1 of 3 tokens"),
        ("364", "874", "1 of 3 tokens"),
        ("hex_id", "id", "has no column hex_id"),
        ("2728", "many", "line 3 cannot be read"),
        (
            "364,2728,35.9593396631232,108.13288446407641",
            "8744,3376,39.28,-107.94",
            "lie in others, or are there twice",
        ),
    ],
)
def test_a_damaged_table_is_refused(before, after, match):
    with pytest.raises(UsageError, match=f"--cells x: .*{match}"):
        read_published(PUBLISHED.replace(before, after).encode(), "--cells x")


def test_real_coordinates_in_the_papers_partitions():
    """GeoCLIP's 100,000 places."""
    from geoloc.encoders.geoclip import geoclip_gallery

    lat, lon = geoclip_gallery()
    found = partition(lat, lon, GEOSURGE)
    sizes = [len(cells) for cells in found.partitions]
    assert all(few < many for few, many in itertools.pairwise(sizes))
    assert all(
        cells.count.min() > 50 and cells.count.max() <= most
        for cells, most in zip(found.partitions, GEOSURGE, strict=True)
    )
