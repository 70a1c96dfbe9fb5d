"""The Earth in cells that hold about equally many photos, at several granularities, each within one of the next coarser.

PlaNet's partition (Weyand et al. 2016) as GeoEstimation (Müller-Budack et al. 2018) and GeoSURGE (§III-A) make it: a cell with more
than ``most`` photos is quartered; what has ``fewest`` photos or fewer in the end is left out, and so covers nothing. Where the same
photos are divided with the same ``fewest``, a cell of a finer partition lies in exactly one of every coarser one: on the way down
from that cell's face, counts only fall, so the coarser division stopped at or above it.
"""

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.errors import UsageError
from geoloc.geo.cells import (
    LEAF_LEVEL,
    ancestors,
    cell_ids,
    cell_tokens,
    centres,
    children,
    first,
    last,
    levels,
    parse_tokens,
    valid,
)
from geoloc.geo.distance import geodesic_km, unit_vectors

GEOSURGE = (25_000, 10_000, 5_000, 2_000, 1_000, 750, 500)
"""Photos a cell at most, coarsest first (GeoSURGE §IV)."""
PUBLISHED = {
    "token": ("hex_id", "hexid", "token"),
    "count": ("imgs_per_cell", "count"),
    "lat": ("latitude_mean", "lat"),
    "lon": ("longitude_mean", "lon"),
}
"""Columns of GeoEstimation's ``cells_50_….csv``, and plain names for them."""
_WITHIN = 1.5
"""A place that a table gives a cell may lie so many of its widths from its centre: arithmetic means leave some cells."""
_FACE_KM = 10_007
SCHEMA = pa.schema(
    {
        "level": pa.int32(),
        "token": pa.string(),
        "count": pa.int64(),
        "lat": pa.float64(),
        "lon": pa.float64(),
        "parent": pa.string(),
    }
)
"""Of a hierarchy: the partition, 0 the coarsest; the cell; its photos and their mean place; the cell of the next coarser partition."""


@dataclass(frozen=True)
class Partition:
    """Cells that do not overlap, in the order of their ids."""

    ids: np.ndarray
    """(m,) uint64."""
    count: np.ndarray
    """(m,) photos."""
    lat: np.ndarray
    """(m,) degrees: with ``lon`` the mean of the cell's photos, where a photo in this cell is said to be."""
    lon: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        """The number of the cell that each place (n,) is in, (n,) int64; -1 where it is in none."""
        return self.holding(cell_ids(lat, lon))

    def holding(self, ids: np.ndarray) -> np.ndarray:
        """The number of the cell that each cell (n,) is, or is in; -1 where there is none."""
        at = np.searchsorted(first(self.ids), ids, side="right") - 1
        inside = (at >= 0) & (ids <= last(self.ids)[at])
        return np.where(inside & (levels(ids) >= levels(self.ids)[at]), at, -1)


@dataclass(frozen=True)
class Hierarchy:
    partitions: tuple[Partition, ...]
    """Coarsest first."""
    parents: tuple[np.ndarray, ...]
    """Of each partition but the coarsest: the number, in the next coarser one, of the cell that each cell is in."""

    @classmethod
    def of(cls, partitions: Sequence[Partition]) -> "Hierarchy":
        """Raises UsageError where a cell is in none of the coarser partition: then they are of other photos."""
        parents = tuple(coarse.holding(fine.ids) for coarse, fine in itertools.pairwise(partitions))
        for level, of_level in enumerate(parents, 1):
            if lost := np.count_nonzero(of_level < 0):
                raise UsageError(
                    f"partition {level} (of {len(partitions[level]):,} cells) has {lost:,} cells that lie in none of the "
                    f"{len(partitions[level - 1]):,} of the partition before it: they were not made of the same photos, or not "
                    "with the same smallest number of photos, or are not in order, coarsest first"
                )
        return cls(tuple(partitions), parents)

    @property
    def finest(self) -> Partition:
        return self.partitions[-1]

    def lineage(self) -> np.ndarray:
        """(m, levels): of each of the finest cells the number of its cell in every partition, itself last."""
        found = [np.arange(len(self.finest))]
        for parents in reversed(self.parents):
            found.append(parents[found[-1]])
        return np.stack(found[::-1], axis=1)


def partition(
    lat: np.ndarray, lon: np.ndarray, most: Sequence[int], fewest: int = 50, start_level: int = 2
) -> Hierarchy:
    """Cells of at most ``most`` and more than ``fewest`` photos, of photos at these places (n,) in degrees.

    ``most`` are the partitions' numbers, coarsest first; cells are quartered from ``start_level`` on, down to leaves, which are kept
    however many photos are at one spot. The defaults are those of the published partitions; the papers begin at level 0 and say
    "fewer than" ``fewest``, which is ``fewest - 1`` here. Raises UsageError where no cell has enough photos.
    """
    if any(few >= many for many, few in itertools.pairwise(most)) or not most or most[-1] <= fewest:
        raise UsageError(f"most {list(most)}: must fall from partition to partition, and stay above {fewest}")
    ids = cell_ids(lat, lon)
    order = np.argsort(ids, kind="stable")
    ids, points = ids[order], unit_vectors(lat, lon)[order]
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(points, axis=0)])
    return Hierarchy.of([_partition(ids, sums, many, fewest, start_level) for many in most])


def _partition(ids: np.ndarray, sums: np.ndarray, most: int, fewest: int, start_level: int) -> Partition:
    """Of leaves in order, and the running sums (n + 1, 3) of their points."""
    cells, kept = np.unique(ancestors(ids, start_level)), []
    for level in range(start_level, LEAF_LEVEL + 1):
        begin, end = np.searchsorted(ids, first(cells)), np.searchsorted(ids, last(cells), side="right")
        count = end - begin
        full = (count > most) & (level < LEAF_LEVEL)
        keep = ~full & (count > fewest)
        kept.append((cells[keep], begin[keep], end[keep]))
        if not full.any():
            break
        cells = children(cells[full])
    cells, begin, end = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    if not len(cells):
        raise UsageError(
            f"no cell has more than {fewest:,} of the {len(ids):,} photos; lower the smallest number of photos a cell"
        )
    order = np.argsort(cells)
    cells, begin, end = cells[order], begin[order], end[order]
    return Partition(cells, end - begin, *degrees_of(sums[end] - sums[begin]))


def degrees_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of points in space (n, 3), of any length."""
    lat = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    return np.degrees(lat), np.degrees(np.arctan2(points[:, 1], points[:, 0]))


def write_partitions(partitions: Sequence[Partition], parents: Sequence[np.ndarray] = ()) -> bytes:
    """A Parquet file (SCHEMA). ``parents`` are a hierarchy's; without them, cells have none."""
    rows = []
    for level, cells in enumerate(partitions):
        above = cell_tokens(partitions[level - 1].ids)[parents[level - 1]] if level and parents else None
        columns = {
            "level": np.full(len(cells), level, np.int32),
            "token": cell_tokens(cells.ids),
            "count": cells.count,
            "lat": cells.lat,
            "lon": cells.lon,
            "parent": pa.nulls(len(cells), pa.string()) if above is None else above,
        }
        rows.append(pa.table(columns, schema=SCHEMA))
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables(rows), sink, compression="zstd")
    return sink.getvalue()


def read_hierarchy(data: bytes, option: str) -> Hierarchy:
    """What ``write_partitions`` wrote of one. Raises UsageError, naming the option, where it is none."""
    try:
        table = pq.read_table(io.BytesIO(data)).select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UsageError(f"{option}: is no Parquet file of cells ({' '.join(str(error).split())[:200]})") from error
    numbers = table["level"].to_numpy()
    found = [
        _of_columns(table.filter(pa.array(numbers == level)), option) for level in range(numbers.max(initial=-1) + 1)
    ]
    if not found or any(not len(cells) for cells in found):
        raise UsageError(f"{option}: lacks the cells of a level")
    return Hierarchy.of(found)


def read_published(data: bytes, option: str) -> Partition:
    """A table ``cells_50_….csv`` as GeoEstimation published it. Raises UsageError where it is none, or its tokens are damaged.

    Spreadsheets make numbers of tokens such as 47e3, and drop zeros before and after: what is left is no cell, or one elsewhere.
    """
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig", "replace")))
    names = {
        name: next((c for c in rows.fieldnames or () if c.strip().lower() in known), None)
        for name, known in PUBLISHED.items()
    }
    if missing := [known[0] for name, known in PUBLISHED.items() if names[name] is None]:
        raise UsageError(f"{option}: has no column {', '.join(missing)}")
    columns: dict[str, list] = {name: [] for name in PUBLISHED}
    for number, row in enumerate(rows, 2):
        try:
            columns["token"].append(row[names["token"]].strip())
            columns["count"].append(int(float(row[names["count"]])))
            for axis in ("lat", "lon"):
                columns[axis].append(float(row[names[axis]]))
        except (ValueError, AttributeError, TypeError) as error:
            raise UsageError(f"{option}: line {number} cannot be read ({error})") from error
    return _of_columns(pa.table(columns), option)


def _of_columns(table: pa.Table, option: str) -> Partition:
    """Raises UsageError where a token is no cell, or its cell is not where the table says that its photos are."""
    tokens = table["token"].to_numpy(zero_copy_only=False)
    ids = parse_tokens(tokens)
    lat, lon = (table[axis].to_numpy().astype(np.float64) for axis in ("lat", "lon"))
    wrong = ~valid(ids)
    near = ids.copy()
    near[wrong] = 1  # any cell
    wrong |= cell_tokens(near) != np.array([str(token).lower() for token in tokens], object)
    wrong |= _from_cells_km(near, lat, lon) > _WITHIN * _FACE_KM / 2.0 ** levels(near)
    if wrong.any():
        some = ", ".join(f"{tokens[row]!r} ({lat[row]:g}, {lon[row]:g})" for row in np.flatnonzero(wrong)[:5])
        raise UsageError(
            f"{option}: {np.count_nonzero(wrong):,} of {len(ids):,} tokens are no S2 cell at their place, such as {some}; "
            "a spreadsheet that takes tokens for numbers does this: take the table as it was published"
        )
    order = np.argsort(ids)
    ids = ids[order]
    if np.any(first(ids)[1:] <= last(ids)[:-1]):
        raise UsageError(f"{option}: some of its cells lie in others, or are there twice")
    return Partition(ids, table["count"].to_numpy()[order], lat[order], lon[order])


def _from_cells_km(ids: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """From the middle of each cell to the place it is given."""
    middle = centres(ids)
    return geodesic_km(middle[:, 0], middle[:, 1], np.clip(lat, -90, 90), lon)
