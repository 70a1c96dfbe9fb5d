"""Positions of photos, read from whatever file they are in: predictions or truth, ours or anyone's.

A CSV, a Parquet file, or a folder of those (a run folder of the archive job, or a peer's). Columns are recognised by
their names, as the field's data sets have them, or are named.
"""

import csv
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from geoloc.columns import IDS, LISTS, Role, csv_format, plain, position_columns
from geoloc.errors import UsageError
from geoloc.schema import CONFIDENCES
from geoloc.storage import Folder, S3Options, describe

log = logging.getLogger("geoloc")

_NO_VALUE = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "none", "NA", "N/A"]
_TWO_NUMBERS = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
MOST_SUMMARY_LINES = 10
"""At the end of a table of predictions."""
_OURS = ["radius_km", "confidence", *CONFIDENCES.values()]
CANDIDATE_PARTS = ["lat", "lon", "score", "similarity"]


@dataclass(frozen=True)
class Columns:
    """Names of columns that are not to be guessed."""

    id: str | None = None
    """Column with the photo's id or file name (default: recognised, e.g. id, uri, IMG_ID)."""
    lat: str | None = None
    """Column with the latitude, degrees (default: recognised, e.g. lat, LAT, latitude, predicted_lat)."""
    lon: str | None = None
    """Column with the longitude, degrees (default: recognised, e.g. lon, LON, lng, longitude, predicted_lon)."""


@dataclass(frozen=True)
class Positions:
    """n photos and where they are."""

    source: str
    ids: dict[str, pa.Array]
    """Columns (n,) of strings that may identify a photo, by column name, best first."""
    lat: np.ndarray
    """(n,) degrees; NaN where there is none."""
    lon: np.ndarray
    author: pa.Array | None = None
    kept: np.ndarray | None = None
    """(n,) bool, of a run: the photo carried GPS and was left alone, so its position is no prediction."""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """What a run says besides, (n,) each: radius_km, confidence…"""
    lists: pa.ListArray | None = None
    """Candidates (n,), lists of structs with CANDIDATE_PARTS, where they came with the positions."""
    files: "tuple[_File, ...]" = ()
    """Where they are too many to be held."""

    def __len__(self) -> int:
        return len(self.lat)

    def groups(self, rows: np.ndarray) -> np.ndarray | None:
        """For rows (m,), integers that are equal for photos of one author; one of unknown author is by itself.

        None where no author is known.
        """
        if self.author is None:
            return None
        coded = self.author.take(pa.array(rows)).dictionary_encode()
        codes, names = coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()
        if names == [""]:
            return None
        unknown = names.index("") if "" in names else -1
        return np.where(codes == unknown, len(names) + np.arange(len(codes)), codes)

    @property
    def has_candidates(self) -> bool:
        return self.lists is not None or (bool(self.files) and all("candidates" in file.names for file in self.files))

    def candidates(self) -> Iterator[tuple[int, pa.ListArray]]:
        """A piece at a time: its first row, and its candidates as lists of structs with CANDIDATE_PARTS."""
        if self.lists is not None:
            yield 0, self.lists
            return
        row = 0
        for file in self.files:
            for batch in file.candidates():
                yield row, batch
                row += len(batch)


@dataclass(frozen=True)
class _File:
    folder: Folder
    path: str
    names: list[str]

    @property
    def is_parquet(self) -> bool:
        return self.path.lower().endswith((".parquet", ".pq"))

    def read(self, names: list[str], text: set[str]) -> pa.Table:
        with self.folder.filesystem.open(self.path, "rb") as file:
            if self.is_parquet:
                return pq.read_table(file, columns=names)
            kinds = {name: pa.string() if name in text else pa.float64() for name in names}
            convert = pyarrow.csv.ConvertOptions(
                column_types=kinds, include_columns=names, null_values=_NO_VALUE, strings_can_be_null=True
            )
            layout = csv_format(self.folder, self.path)
            try:
                return pyarrow.csv.read_csv(file, parse_options=layout, convert_options=convert)
            except pa.ArrowInvalid:
                numbers = [name for name in names if name not in text]
                file.seek(0)
                data = self._without_summary(file.read(), layout.delimiter, numbers)
                if data is None:
                    raise
            return pyarrow.csv.read_csv(pa.BufferReader(data), parse_options=layout, convert_options=convert)

    def _without_summary(self, data: bytes, delimiter: str, numbers: list[str]) -> bytes | None:
        """Without the last lines, where they are no rows of the table: TIBHannover's predictions end in their accuracies.

        Such lines come after an empty one, or begin with one that has no number at all, and are few. None where all lines
        are rows; raises ValueError, naming the line, for one that is neither.
        """
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter)
        header = next(reader)
        at = [header.index(name) for name in numbers]
        line, apart = reader.line_num + 1, False
        for row in reader:
            if row and (len(row) != len(header) or not all(_is_number(row[column]) for column in at)):
                apart = apart or not any(cell and _is_number(cell) for cell in row)
                break
            line, apart = reader.line_num + 1, not row
        lines = data.splitlines(keepends=True)
        rest = [text for text in lines[line - 1 :] if text.strip()]
        if not rest:
            return None
        what = rest[0].decode("utf-8", "replace").strip()[:80]
        if not apart or len(rest) > MOST_SUMMARY_LINES:
            raise ValueError(f"line {line} has no {' and '.join(numbers)}: {what!r}")
        log.warning("%s: its last lines, from line %s on, are no photos and are left out (%s …)", self.path, line, what)
        return b"".join(lines[: line - 1])

    def candidates(self) -> Iterator[pa.ListArray]:
        with self.folder.filesystem.open(self.path, "rb") as file:
            parts = [f"candidates.list.element.{name}" for name in CANDIDATE_PARTS]
            for batch in pq.ParquetFile(file).iter_batches(batch_size=16_384, columns=parts):
                yield batch["candidates"]


def _is_number(text: str) -> bool:
    if text in _NO_VALUE:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_positions(
    path: str, role: Role, columns: Columns | None = None, s3: S3Options | None = None, option: str | None = None
) -> Positions:
    """Raises UsageError, naming the option, the file and what it has, where it cannot be read or understood."""
    columns, option = columns or Columns(), option or role.upper()
    if bool(columns.lat) != bool(columns.lon):
        raise UsageError(f"{option} {path}: a column was named for one of latitude and longitude; name both")
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


def _files(path: str, role: Role, s3: S3Options, option: str) -> list[_File]:
    folder = Folder(path, s3)
    try:
        if folder.filesystem.isfile(folder.path()):
            return [_described(folder, folder.path(), option)]
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
        named = [_described(folder, name, option) for name in results or found if name.lower().endswith(suffix)]
        fitting = [file for file in named if _position_columns(file.names, role, Columns())]
        if fitting:
            return fitting
    raise UsageError(f"{option} {path}: holds no .parquet or .csv file with coordinates")


def _described(folder: Folder, path: str, option: str) -> _File:
    try:
        if path.lower().endswith((".parquet", ".pq")):
            with folder.filesystem.open(path, "rb") as file:
                names = pq.ParquetFile(file).schema_arrow.names
        else:
            delimiter = csv_format(folder, path).delimiter
            with folder.filesystem.open(path, "rb") as file:
                line = file.readline().decode("utf-8-sig", "replace")
            names = next(csv.reader([line], delimiter=delimiter), [])
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{option} {path}: cannot read it ({describe(error)})") from error
    return _File(folder, path, names)


def _read(file: _File, role: Role, columns: Columns, where: str) -> Positions:
    ids = [columns.id] if columns.id else _id_columns(file.names)
    position = _position_columns(file.names, role, columns)
    missing = [name for name in (columns.id, columns.lat, columns.lon) if name and name not in file.names]
    if missing or not ids or position is None:
        what = (
            f"no column `{missing[0]}`"
            if missing
            else f"no column that looks like {'an id' if not ids else 'coordinates'}"
        )
        raise UsageError(f"{where}: {what} (it has {', '.join(file.names)}); name the columns it has with options")
    author = next((name for name in file.names if plain(name) == "author"), None)
    extra = [name for name in _OURS if name in file.names]
    strings = [*ids, *([author] if author else []), *(["status"] if "status" in file.names else [])]
    names = list(dict.fromkeys([*strings, *position, *extra]))
    text = {*strings, *(position if len(position) == 1 else ())}
    try:
        table = file.read(names, text)
        lists = _candidate_lists(table[position[0]]) if plain(position[0]) in LISTS else None
        lat, lon = _coordinates(table, position) if lists is None else _first_of(lists)
        return Positions(
            source=file.path,
            ids={name: _strings(table[name]) for name in ids},
            lat=lat,
            lon=lon,
            author=_strings(table[author]) if author else None,
            lists=lists,
            kept=_is(table["status"], "kept") if "status" in names else None,
            extra={name: _values(table[name]) for name in extra},
        )
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{where}: {describe(error)}") from error


def _id_columns(names: list[str]) -> list[str]:
    """Best first. A run's ``id`` is its own row number, and says nothing beside ``uri``."""
    found = sorted((name for name in names if plain(name) in IDS), key=lambda name: IDS.index(plain(name)))
    return found[:1] if found and found[0] == "uri" and "status" in names else found


def _position_columns(names: list[str], role: Role, columns: Columns) -> tuple[str, ...] | None:
    """As they were named, or as they are recognised."""
    return (columns.lat, columns.lon) if columns.lat and columns.lon else position_columns(names, role)


def _coordinates(table: pa.Table, position: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if len(position) == 2:
        return tuple(_values(table[name]) for name in position)
    pairs = table[position[0]].to_pylist()
    parsed = [pair if not isinstance(pair, str) else _TWO_NUMBERS.findall(pair) for pair in pairs]
    array = np.array([pair if pair is not None and len(pair) == 2 else (np.nan, np.nan) for pair in parsed], np.float64)
    return array.reshape(-1, 2)[:, 0].copy(), array.reshape(-1, 2)[:, 1].copy()


def candidate_lists(lat: np.ndarray, lon: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Candidates that come in order and without scores: (sum of lengths,) coordinates, best first photo by photo."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rank = np.arange(len(lat)) - np.repeat(offsets[:-1], lengths)
    arrays = [pa.array(values, pa.float64()) for values in (lat, lon, -rank, -rank)]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, CANDIDATE_PARTS))


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
