import numpy as np
import pytest
import s2geometry
from hypothesis import given
from hypothesis import strategies as st

from geoloc.geo.cells import (
    LEAF_LEVEL,
    ancestors,
    cell_ids,
    cell_tokens,
    centres,
    children,
    corners,
    first,
    last,
    levels,
    parse_tokens,
    valid,
)

SPECIAL = [(90, 0), (-90, 0), (90, 77), (0, 180), (0, -180), (0, 0), (45, 45), (35.2, -135), (0, 45), (-0.0, 90)]


def peer(lat: float, lon: float) -> s2geometry.S2CellId:
    return s2geometry.S2CellId(s2geometry.S2LatLng.FromDegrees(lat, lon))


@pytest.fixture
def places(random) -> tuple[np.ndarray, np.ndarray]:
    """Evenly over the globe, and where the projection has its seams."""
    lat, lon = np.degrees(np.arcsin(random.uniform(-1, 1, 5000))), random.uniform(-180, 180, 5000)
    special = np.array(SPECIAL, float)
    return np.concatenate([lat, special[:, 0]]), np.concatenate([lon, special[:, 1]])


def test_ids_are_those_of_s2(places):
    ours = cell_ids(*places)
    assert ours.tolist() == [peer(lat, lon).id() for lat, lon in zip(*(axis.tolist() for axis in places), strict=True)]


@pytest.mark.parametrize("level", [0, 1, 7, 13, 29, 30])
def test_cells_are_those_of_s2(places, level):
    cells = ancestors(cell_ids(*places), level)[-400:]
    peers = [s2geometry.S2CellId(number) for number in cells.tolist()]
    leaves = [peer(lat, lon) for lat, lon in zip(*(axis[-400:].tolist() for axis in places), strict=True)]
    assert [p.id() for p in peers] == [leaf.parent(level).id() for leaf in leaves]
    assert levels(cells).tolist() == [level] * len(cells)
    assert valid(cells).all()
    assert cell_tokens(cells).tolist() == [p.ToToken() for p in peers]
    assert first(cells).tolist() == [p.range_min().id() for p in peers]
    assert last(cells).tolist() == [p.range_max().id() for p in peers]
    assert parse_tokens(cell_tokens(cells)).tolist() == cells.tolist()
    if level < LEAF_LEVEL:
        assert children(cells).tolist() == [p.child(n).id() for p in peers for n in range(4)]
    middles = [(p.ToLatLng().lat().degrees(), p.ToLatLng().lng().degrees()) for p in peers]
    assert_same_places(centres(cells), np.array(middles))
    vertices = [s2geometry.S2LatLng(s2geometry.S2Cell(p).GetVertex(n)) for p in peers for n in range(4)]
    vertices = np.array([(v.lat().degrees(), v.lng().degrees()) for v in vertices])
    assert_same_places(corners(cells).reshape(-1, 2), vertices)


def assert_same_places(ours: np.ndarray, theirs: np.ndarray) -> None:
    def points(places):
        lat, lon = np.radians(places).T
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    np.testing.assert_allclose(points(ours), points(theirs), atol=1e-9)


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, LEAF_LEVEL - 1))
def test_a_place_is_in_one_of_its_cells_quarters(lat, lon, level):
    leaf = cell_ids(np.array([lat]), np.array([lon]))
    quarters = children(ancestors(leaf, level))
    inside = (first(quarters) <= leaf) & (leaf <= last(quarters))
    assert quarters[inside].tolist() == ancestors(leaf, level + 1).tolist()


@pytest.mark.parametrize(
    "token", ["", "g7", "0000000000000000", "47e66", "c", "e1", "47e66fe1f47987f12", "4.7E+65", None]
)
def test_what_is_no_cell(token):
    """47e66 is: its lowest bit is at an even place; the others are not."""
    [number] = parse_tokens(np.array([token], object))
    assert bool(valid(np.array([number]))[0]) == s2geometry.S2CellId.FromToken(token or "X").is_valid()
