"""S2 cells in arrays: the cell of a place, its ancestors, tokens and corners.

A cell is one of six faces of a cube, or a quarter of a cell; ids are 64 bits, in the order of a Hilbert curve over the globe, so
that a cell's descendants lie between ``first`` and ``last``. Leaves, at level 30, are a centimetre wide. The same ids as the S2
library's (s2geometry.io), whose Python binding knows single cells only.
"""

import functools

import numpy as np

LEAF_LEVEL = 30
_SIDE = 1 << LEAF_LEVEL
"""Leaves along an edge of a face."""
_BITS = 4
"""Levels that are looked up at once."""
_SWAP, _INVERT = 1, 2
_IJ = np.array([[0, 1, 3, 2], [0, 2, 3, 1], [3, 2, 0, 1], [3, 1, 0, 2]])
"""By orientation of the curve: the quarters (2 i + j) in its order."""
_TURN = np.array([_SWAP, 0, 0, _INVERT | _SWAP])
"""What each of these quarters changes of its orientation."""
_AXES = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0], [2, 1, 0]])
"""By face: which of x, y, z is its normal, u and v."""
_SIGNS = np.array([[1, 1, 1], [1, -1, 1], [1, -1, -1], [-1, -1, -1], [-1, -1, 1], [-1, 1, 1]])
"""And with which sign."""


def cell_ids(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """(n,) latitudes and longitudes in degrees to the ids of their leaf cells, (n,) uint64.

    >>> cell_tokens(cell_ids(np.array([48.8583]), np.array([2.2944])))
    array(['47e66fe1f47987f1'], dtype=object)
    """
    lat, lon = np.radians(lat), np.radians(lon)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    face = 2 - np.abs(points[::-1]).argmax(axis=0)  # of equals the last, as S2 does
    face = np.where(np.take_along_axis(points, face[None], axis=0)[0] < 0, face + 3, face)
    normal, u, v = (
        np.take_along_axis(points, _AXES[face, part][None], axis=0)[0] * _SIGNS[face, part] for part in range(3)
    )
    i, j = (_leaves(_st(part / normal)) for part in (u, v))
    orientation = face & _SWAP
    ids = np.zeros(len(face), np.uint64)
    table = _table()
    for shift in range(LEAF_LEVEL + 2 - _BITS, -1, -_BITS):
        nibbles = ((i >> shift & 15) << 6) | ((j >> shift & 15) << 2)
        found = table[nibbles | orientation]
        ids |= (found >> 2).astype(np.uint64) << np.uint64(2 * shift)
        orientation = found & 3
    return (face.astype(np.uint64) << np.uint64(61)) | ids << np.uint64(1) | np.uint64(1)


def levels(ids: np.ndarray) -> np.ndarray:
    """(n,) ids to their levels, 0 to 30."""
    trailing = np.log2(_lowest(ids).astype(np.float64)).astype(np.int64)  # exact: powers of two
    return LEAF_LEVEL - trailing // 2


def ancestors(ids: np.ndarray, level: int) -> np.ndarray:
    """The cells of a level that hold these, (n,) uint64.

    >>> cell_tokens(ancestors(cell_ids(np.array([48.8583]), np.array([2.2944])), 10))
    array(['47e66f'], dtype=object)
    """
    lowest = np.uint64(1 << 2 * (LEAF_LEVEL - level))
    return (ids & ~(lowest - np.uint64(1) | lowest)) | lowest if level < LEAF_LEVEL else ids.copy()


def children(ids: np.ndarray) -> np.ndarray:
    """The four quarters of each cell, in the order of ids, (4 n,)."""
    step = _lowest(ids) >> np.uint64(2)
    places = np.array([-3, -1, 1, 3], np.int64)
    return (ids.astype(np.int64)[:, None] + places * step.astype(np.int64)[:, None]).astype(np.uint64).ravel()


def first(ids: np.ndarray) -> np.ndarray:
    """The lowest leaf id in each cell."""
    return ids - (_lowest(ids) - np.uint64(1))


def last(ids: np.ndarray) -> np.ndarray:
    """The highest leaf id in each cell."""
    return ids + (_lowest(ids) - np.uint64(1))


def valid(ids: np.ndarray) -> np.ndarray:
    """(n,) bool: whether there are such cells."""
    lowest = _lowest(ids)
    return (ids >> np.uint64(61) < 6) & (lowest & np.uint64(0x1555555555555555) != 0)


def cell_tokens(ids: np.ndarray) -> np.ndarray:
    """(n,) ids to their tokens, as S2 writes them: hexadecimal, without the zeros at the end."""
    return np.array([f"{number:016x}".rstrip("0") for number in ids.tolist()], object)


def parse_tokens(tokens: np.ndarray) -> np.ndarray:
    """(n,) tokens to ids; 0, which is no cell, for what is no token."""
    return np.array([_parse(token) for token in tokens], np.uint64)


def centres(ids: np.ndarray) -> np.ndarray:
    """(n,) ids to their middles (n, 2), latitude and longitude in degrees.

    >>> centres(parse_tokens(np.array(["47e671"]))).round(3)
    array([[48.816,  2.319]])
    """
    face, i, j, size = _squares(ids)
    return _degrees(face, (i + size / 2)[:, None], (j + size / 2)[:, None])[:, 0]


def corners(ids: np.ndarray) -> np.ndarray:
    """(n,) ids to their corners (n, 4, 2), latitude and longitude in degrees, around the cell."""
    face, i, j, size = _squares(ids)
    return _degrees(face, i[:, None] + size[:, None] * [0, 1, 1, 0], j[:, None] + size[:, None] * [0, 0, 1, 1])


def _lowest(ids: np.ndarray) -> np.ndarray:
    """The lowest bit that is set: it tells the level."""
    return ids & (~ids + np.uint64(1))


def _parse(token: object) -> int:
    try:
        return int(str(token).ljust(16, "0"), 16) if 0 < len(str(token)) <= 16 and str(token).isalnum() else 0
    except ValueError:
        return 0


def _st(u: np.ndarray) -> np.ndarray:
    """S2's quadratic projection, which makes cells of a level about equally large: -1 to 1 becomes 0 to 1."""
    root = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    return np.where(u >= 0, root, 1 - root)


def _uv(s: np.ndarray) -> np.ndarray:
    """Back."""
    return np.where(s >= 0.5, (4 * s * s - 1) / 3, (1 - 4 * (1 - s) ** 2) / 3)


def _leaves(s: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(_SIDE * s - 0.5), 0, _SIDE - 1).astype(np.int64)


@functools.cache
def _table() -> np.ndarray:
    """(1024,) by four bits of i, four of j and the curve's orientation: eight bits along the curve, and its orientation there."""
    table = np.empty(1 << (2 * _BITS + 2), np.int64)
    for start in range(4):
        cells = [(0, 0, 0, start)]
        for _ in range(_BITS):
            cells = [
                (2 * i + (_IJ[way, n] >> 1), 2 * j + (_IJ[way, n] & 1), 4 * along + n, way ^ _TURN[n])
                for i, j, along, way in cells
                for n in range(4)
            ]
        for i, j, along, way in cells:
            table[i << 6 | j << 2 | start] = along << 2 | way
    return table


def _squares(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells' faces, lowest i and j, and how many leaves they are wide."""
    table = _table()
    back, before = np.empty_like(table), np.arange(len(table))
    back[(table >> 2) << 2 | before & 3] = before & ~3 | table & 3
    face = (ids >> np.uint64(61)).astype(np.int64)
    along = (first(ids) >> np.uint64(1)).astype(np.int64) & (1 << 2 * LEAF_LEVEL) - 1
    orientation, i, j = face & _SWAP, np.zeros_like(face), np.zeros_like(face)
    for shift in range(LEAF_LEVEL + 2 - _BITS, -1, -_BITS):
        found = back[(along >> 2 * shift & 255) << 2 | orientation]
        i, j, orientation = i | (found >> 6) << shift, j | (found >> 2 & 15) << shift, found & 3
    size = np.int64(1) << (LEAF_LEVEL - levels(ids))
    return face, i & -size, j & -size, size


def _degrees(face: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Of points (n, k) of faces (n,), counted in leaves: latitude and longitude (n, k, 2)."""
    u, v = _uv(i / _SIDE), _uv(j / _SIDE)
    local = np.stack([np.ones_like(u), u, v], axis=-1) * _SIGNS[face][:, None, :]
    points = np.empty_like(local)
    np.put_along_axis(points, np.broadcast_to(_AXES[face][:, None, :], local.shape), local, axis=-1)
    lat = np.arctan2(points[..., 2], np.hypot(points[..., 0], points[..., 1]))
    return np.degrees(np.stack([lat, np.arctan2(points[..., 1], points[..., 0])], axis=-1))
