"""A collection from a table as anybody has it: CSV or Parquet, a row a photo."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.context.archive import COLUMNS, compact, timed
from geoloc.context.chains import CANDIDATES, in_one_clock
from geoloc.context.collection import Collection, shares_of
from geoloc.context.company import Company, CompanyOptions
from geoloc.errors import UsageError
from geoloc.evaluation.table_file import TableFile
from geoloc.geo.distance import valid_coordinates
from geoloc.photos.times import capture_time, read_time
from geoloc.results.parts import Parts
from geoloc.storage import Folder, S3Options, describe

_COORDINATES = ("lat", "lon", "known_lat", "known_lon")
_TEXT = ("uri", "album", "camera", "taken_at", "candidates")
_MINUTE = 60.0


@dataclass(frozen=True)
class CollectionTable:
    """A table's photos, in its order."""

    collection: Collection
    uri: pa.ChunkedArray
    photos: pa.Table
    """Of each: camera, camera_serial, taken_at, as far as they are told."""
    notes: list[str]
    """What was not as it should be, or has been guessed."""


def read_collection(path: str, s3: S3Options | None = None, company: CompanyOptions | None = None) -> CollectionTable:
    """Columns: uri; album or camera, or both; taken_at or sequence, or both; lat and lon, or candidates; known_lat and
    known_lon. Others are left alone.

    Raises UsageError, naming what is wrong, where it cannot be read or says nothing of where photos are.
    """
    where = f"TABLE {path}"
    folder, name = Folder(path, s3 or S3Options()).parent()
    try:
        file = TableFile.open(folder, folder.path(name))
        _check(file.names, where)
        wanted = [column for column in (*_TEXT, *_COORDINATES, "sequence") if column in file.names]
        table = file.read(wanted, set(_TEXT))
        if not table.num_rows:
            raise UsageError(f"{where}: has no rows")
        return _collection_table(table, where, company or CompanyOptions())
    except UsageError:
        raise
    except (OSError, pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: {describe(error)}") from error


def _collection_table(table: pa.Table, where: str, company: CompanyOptions) -> CollectionTable:
    notes: list[str] = []
    candidates, scores = _candidates(table, where)
    known = _pairs(table, "known_lat", "known_lon")
    impossible = ~np.isnan(known).any(1) & ~valid_coordinates(known[:, 0], known[:, 1])
    if impossible.any():
        notes.append(f"{int(impossible.sum()):,} known places are no place on the Earth, and are left out")
    known[impossible | np.isnan(known).any(1)] = np.nan
    chain = _chains(table, notes)
    minutes, offsets = (
        _minutes(table["taken_at"]) if "taken_at" in table.column_names else (np.full(table.num_rows, np.nan),) * 2
    )
    position, timed = _positions(table, minutes, notes)
    met = None
    if timed:
        position, utc = in_one_clock(chain, minutes, offsets)
        in_utc = pa.types.is_timestamp(table["taken_at"].type) and table["taken_at"].type.tz is not None
        position, told = company.by_told_clock(table, position, np.where(in_utc, np.nan, minutes))
        album = _codes(table["album"]) if "album" in table.column_names else np.zeros(table.num_rows, np.int64)
        met = Company(album, utc | told, told, company.tracks)
    elif company.tracks or company.clock_offsets:
        named = "--tracks" if company.tracks else "--clock-offset"
        notes.append(f"{named}: too few photos have a time for them to be compared with anything")
    cameras = set(table["camera"].cast(pa.string()).to_pylist()) if "camera" in table.column_names else set()
    for camera in sorted(company.clock_offsets.keys() - cameras):
        raise UsageError(f"--clock-offset {camera}: {where} has no photo whose camera is called so")
    present = ~np.isnan(candidates[..., 0])
    shares = shares_of(scores, present)
    return CollectionTable(
        Collection(chain, position, timed, known, candidates, shares, met),
        pc.fill_null(table["uri"].cast(pa.string()), ""),
        pa.table(
            {
                "camera": table["camera"].cast(pa.string())
                if "camera" in table.column_names
                else pa.nulls(table.num_rows, pa.string()),
                "camera_serial": pa.nulls(table.num_rows, pa.string()),
                "taken_at": pa.array(minutes * 60_000, pa.float64(), from_pandas=True)
                .cast(pa.int64(), safe=False)
                .cast(pa.timestamp("ms")),
            }
        ),
        notes,
    )


def read_known(path: str, s3: S3Options | None = None) -> tuple[Collection, pa.Array]:
    """A table, or a run of the archive job: its photos that have a time, of which those that carried a position are known. And their
    names."""
    folder = Folder(path, s3 or S3Options())
    if not folder.exists("run.json"):
        table = read_collection(path, s3)
        return table.collection, table.uri.combine_chunks()
    columns = [*COLUMNS, "true_lat", "true_lon"]
    rows = pa.concat_tables(compact(part) for part in Parts(folder / "geotags").tables(columns))
    scale = float(json.loads(folder.read("run.json")).get("score_scale", 1.0))
    used, collection = timed(rows, scale)
    truth = np.stack([rows[f"true_{axis}"].to_numpy()[used] for axis in ("lat", "lon")], axis=1)
    known = np.where(np.isnan(collection.known), truth, collection.known)
    return replace(collection, known=known), rows["uri"].take(pa.array(used)).combine_chunks()


def _check(names: list[str], where: str) -> None:
    if "uri" not in names:
        raise UsageError(f"{where}: has no column 'uri'; it has {', '.join(names)}")
    for one, other in (("lat", "lon"), ("known_lat", "known_lon")):
        if (one in names) != (other in names):
            raise UsageError(f"{where}: has {one if one in names else other} without {other if one in names else one}")
    if not {"lat", "candidates", "known_lat"} & set(names):
        raise UsageError(
            f"{where}: says of no photo where it is; it needs lat and lon (a system's estimates), candidates, or known_lat "
            "and known_lon"
        )


def _pairs(table: pa.Table, *names: str) -> np.ndarray:
    if names[0] not in table.column_names:
        return np.full((table.num_rows, 2), np.nan)
    return np.stack([table[name].cast(pa.float64()).to_numpy() for name in names], axis=1)


def _candidates(table: pa.Table, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, c, 2) and (n, c) scores, NaN where there are none."""
    own = _pairs(table, "lat", "lon")
    own[~valid_coordinates(*own.T)] = np.nan
    if "candidates" not in table.column_names:
        return own[:, None].copy(), np.full((table.num_rows, 1), np.nan)
    out = np.full((table.num_rows, CANDIDATES, 3), np.nan)
    for row, value in enumerate(table["candidates"].to_pylist()):
        try:
            listed = json.loads(value) if isinstance(value, str) else value or []
            read = [one for one in map(_candidate, listed) if valid_coordinates(one[0], one[1])]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise UsageError(
                f"{where}: row {row + 1}: candidates are lists of [lat, lon, score], or of objects with lat, lon and score: "
                f"{str(value)[:80]!r}"
            ) from error
        if not read and not np.isnan(own[row]).any():
            read = [(*own[row], np.nan)]
        if all(np.isfinite(one[2]) for one in read):
            read.sort(key=lambda one: -one[2])
        for place, one in enumerate(read[:CANDIDATES]):
            out[row, place] = one
    most = max(1, int((~np.isnan(out[..., 0])).sum(1).max()))
    return out[:, :most, :2].copy(), out[:, :most, 2]


def _candidate(value: object) -> tuple[float, float, float]:
    """Latitude, longitude and score, NaN where there is none. Raises TypeError, ValueError, KeyError."""
    parts = [value["lat"], value["lon"], value.get("score")] if isinstance(value, dict) else value
    if not isinstance(parts, (list, tuple)) or any(isinstance(part, (str, bool)) for part in parts):
        raise TypeError("no candidate")
    lat, lon, score, *_ = (np.nan if part is None else float(part) for part in [*parts, None])
    return lat, lon, score


def _chains(table: pa.Table, notes: list[str]) -> np.ndarray:
    """Album by album, and camera by camera in each."""
    chain = np.zeros(table.num_rows, np.int64)
    names = [name for name in ("album", "camera") if name in table.column_names]
    if not names:
        notes.append("no column album or camera: all photos are taken to be of one camera")
    for name in names:
        chain = np.unique(np.stack([chain, _codes(table[name])]), axis=1, return_inverse=True)[1].ravel()
    return chain


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    texts = pc.fill_null(column.cast(pa.string()), "").combine_chunks()
    return texts.dictionary_encode().indices.to_numpy().astype(np.int64)


def _positions(table: pa.Table, minutes: np.ndarray, notes: list[str]) -> tuple[np.ndarray, bool]:
    """In minutes, where most photos have a time; else the numbers of the sequence."""
    n = table.num_rows
    number = (
        table["sequence"].cast(pa.float64(), safe=False).to_numpy()
        if "sequence" in table.column_names
        else np.full(n, np.nan)
    )
    number = np.where(np.isfinite(number), number, np.nan)
    timeless = np.isnan(minutes)
    if timeless.mean() < 0.5:
        if timeless.any():
            notes.append(f"{int(timeless.sum()):,} photos have no time that a photo can have been taken at")
        return minutes, True
    if not np.isnan(number).all():
        return number, False
    if not timeless.all():
        notes.append(f"only {int((~timeless).sum()):,} photos have a time: the table's order is taken for theirs")
    elif "sequence" not in table.column_names:
        which = "column taken_at" if "taken_at" not in table.column_names else "time in taken_at"
        notes.append(f"no {which}, and no sequence: the table's order is taken for that of the photos")
    return np.arange(n, dtype=float), False


def _minutes(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Of Parquet's timestamps, or of times as EXIF, XMP and ISO 8601 spell them: what the clock showed, and its offset from UTC."""
    minutes, offsets = np.full(len(column), np.nan), np.full(len(column), np.nan)
    for row, value in enumerate(column.to_pylist()):
        offset = None
        if isinstance(value, str):
            taken = read_time(value, "taken_at")
            value, offset = (taken.at, taken.utc_offset_minutes) if taken else (None, None)
        elif isinstance(value, datetime) and value.tzinfo:
            value, offset = value.astimezone(UTC), 0
        if isinstance(value, datetime) and capture_time(value):
            minutes[row] = value.replace(tzinfo=UTC).timestamp() / _MINUTE
            offsets[row] = np.nan if offset is None else offset
    return minutes, offsets
