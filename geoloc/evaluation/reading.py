"""Positions of photos from whatever file they are in.

A CSV, a Parquet file, or a folder of those (a run folder of the archive job, or a peer's).
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.columns import LISTS, Role, plain
from geoloc.errors import UsageError
from geoloc.evaluation.positions import Positions, candidate_lists
from geoloc.evaluation.recognition import Columns, recognise_columns
from geoloc.evaluation.table_file import TableFile
from geoloc.schema import CONFIDENCES
from geoloc.storage import Folder, S3Options, describe

_TWO_NUMBERS = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
_OURS = ["radius_km", "confidence", *CONFIDENCES.values()]


def read_positions(
    path: str, role: Role, columns: Columns | None = None, s3: S3Options | None = None, option: str | None = None
) -> Positions:
    """From a file or folder, whose columns are recognised by their names or are those of ``columns``:

    | id                 | latitude, longitude                            |
    |--------------------|------------------------------------------------|
    | uri, IMG_ID, id, … | lat, LAT, latitude, predicted_lat, true_lat, … |
    | "                  | one column of both: gps, predicted_GPS, …      |
    | "                  | lists of candidates: ref_gps, candidate_gps_lis |

    Raises UsageError, naming the option, the file and what it has, where it cannot be read or understood.
    """
    columns, option = columns or Columns(), option or role.upper()
    columns.check(f"{option} {path}")
    files = _files(path, role, s3 or S3Options(), option)
    pieces = [_read(file, role, columns, f"{option} {path}") for file in files]
    first = pieces[0]
    common = [name for name in first.ids if all(name in piece.ids for piece in pieces)]
    shared = [name for name in first.extra if all(name in piece.extra for piece in pieces)]
    authors, kept = [piece.author for piece in pieces], [piece.kept for piece in pieces]
    return Positions(
        source=path,
        ids={name: pa.concat_arrays([piece.ids[name] for piece in pieces]) for name in common},
        lat=np.concatenate([piece.lat for piece in pieces]),
        lon=np.concatenate([piece.lon for piece in pieces]),
        author=None if any(author is None for author in authors) else pa.concat_arrays(authors),
        lists=None if any(piece.lists is None for piece in pieces) else pa.concat_arrays([p.lists for p in pieces]),
        kept=None if any(rows is None for rows in kept) else np.concatenate(kept),
        extra={name: np.concatenate([piece.extra[name] for piece in pieces]) for name in shared},
        files=tuple(files),
    )


def _files(path: str, role: Role, s3: S3Options, option: str) -> list[TableFile]:
    folder = Folder(path, s3)
    try:
        if folder.filesystem.isfile(folder.path()):
            return [_opened(folder, folder.path(), option)]
        found = sorted(folder.filesystem.find(folder.path()))
    except UsageError:
        raise
    except Exception as error:  # whatever the store says, the file cannot be had
        raise UsageError(f"{option} {path}: cannot read it ({describe(error)})") from error
    if not found:
        raise UsageError(f"{option} {path}: no such file or folder")
    root = folder.path().rstrip("/") + "/"
    results = [name for name in found if name.removeprefix(root).startswith("geotags/")]
    for suffix in (".parquet", ".csv"):
        named = [_opened(folder, name, option) for name in results or found if name.lower().endswith(suffix)]
        fitting = [file for file in named if Columns().position(file.names, role)]
        if fitting:
            return fitting
    raise UsageError(f"{option} {path}: holds no .parquet or .csv file with coordinates")


def _opened(folder: Folder, path: str, option: str) -> TableFile:
    try:
        return TableFile.open(folder, path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{option} {path}: cannot read it ({describe(error)})") from error


def _read(file: TableFile, role: Role, columns: Columns, where: str) -> Positions:
    found = recognise_columns(file.names, role, columns, where)
    position, author = found.position, found.author
    extra = [name for name in _OURS if name in file.names]
    strings = [*found.ids, *([author] if author else []), *(["status"] if "status" in file.names else [])]
    names = list(dict.fromkeys([*strings, *position, *extra]))
    text = {*strings, *(position if len(position) == 1 else ())}
    try:
        table = file.read(names, text)
        lists = _candidate_lists(table[position[0]]) if plain(position[0]) in LISTS else None
        lat, lon = _coordinates(table, position) if lists is None else _first_of(lists)
        return Positions(
            source=file.path,
            ids={name: _strings(table[name]) for name in found.ids},
            lat=lat,
            lon=lon,
            author=_strings(table[author]) if author else None,
            lists=lists,
            kept=_is(table["status"], "kept") if "status" in names else None,
            extra={name: _values(table[name]) for name in extra},
        )
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{where}: {describe(error)}") from error


def _coordinates(table: pa.Table, position: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if len(position) == 2:
        return tuple(_values(table[name]) for name in position)
    pairs = table[position[0]].to_pylist()
    parsed = [pair if not isinstance(pair, str) else _TWO_NUMBERS.findall(pair) for pair in pairs]
    array = np.array([pair if pair is not None and len(pair) == 2 else (np.nan, np.nan) for pair in parsed], np.float64)
    return array.reshape(-1, 2)[:, 0].copy(), array.reshape(-1, 2)[:, 1].copy()


def _candidate_lists(column: pa.ChunkedArray) -> pa.ListArray:
    """Of Parquet's lists of pairs, or of Python's spelling of them."""
    rows = []
    for value in column.to_pylist():
        numbers = (
            _TWO_NUMBERS.findall(value) if isinstance(value, str) else np.ravel(value if value is not None else [])
        )
        rows.append(np.array(numbers, np.float64).reshape(-1, 2))
    flat = np.concatenate([np.zeros((0, 2)), *rows])
    return candidate_lists(flat[:, 0], flat[:, 1], np.array([len(row) for row in rows], np.int64))


def _first_of(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    lengths, start = np.diff(lists.offsets.to_numpy()), lists.offsets.to_numpy()[:-1]
    points = np.full((2, len(lists)), np.nan)
    for axis, name in enumerate(("lat", "lon")):
        points[axis, lengths > 0] = lists.values.field(name).to_numpy()[start[lengths > 0]]
    return points[0], points[1]


def _strings(column: pa.ChunkedArray) -> pa.Array:
    return pc.fill_null(column.cast(pa.string()).combine_chunks(), "")


def _is(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(column.cast(pa.string()), value), False).to_numpy()


def _values(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()
