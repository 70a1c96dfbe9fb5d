"""A table of photos as a source: where each is, and, where the table knows, the place it shows."""

import csv
import json
import re
from collections.abc import Sequence

import botocore.exceptions
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import shapely

from geoloc.columns import FILES, csv_format, like_coordinates, plain, position_columns
from geoloc.errors import UsageError
from geoloc.photos.position import read_position
from geoloc.storage import Folder, S3Options, describe

SUFFIXES = (".parquet", ".csv")
NAMES = ("city", "region", "country", "author")

_NO_VALUE = ("", "nan", "null", "none", "na", "n/a")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+$")


def read_table(uri: str, s3: S3Options) -> tuple[pa.Table, list[str]]:
    """``uri`` (string, as it stands), ``lat``, ``lon`` (double) and NAMES (string) of a .csv or .parquet file, or a folder of such, and what
    there is to say of it. Columns are recognised (geoloc.columns); others do not count, also if they are named like ours.

    Raises UsageError, in one line, where it cannot be read or understood.
    """
    where = f"SOURCE {uri}"
    table = _read(uri, s3, where)
    columns = _Columns(where, table)
    names = [name for name in table.column_names if plain(name) in FILES]
    if not names:
        raise UsageError(f"{where}: has no column `uri` (it has {', '.join(table.column_names)})")
    named = min(names, key=lambda name: FILES.index(plain(name)))
    photos = columns.text(named)
    if photos.null_count:
        raise UsageError(f"{where}: {photos.null_count:,} rows have no {named}")
    told, notes = known(where, table, named)
    return pa.table({"uri": photos} | told), notes


def known(where: str, table: pa.Table, named: str | None = None) -> tuple[dict[str, pa.Array], list[str]]:
    """Positions and NAMES that a table tells, but of the column ``named``; and what there is to say of it. Raises UsageError."""
    columns = _Columns(where, table)
    used, (lat, lon) = columns.positions()
    places = {name: columns.text(found) if (found := columns.find(name)) else None for name in NAMES}
    result = {"lat": lat, "lon": lon} | {
        name: pa.nulls(table.num_rows, pa.string()) if column is None else column for name, column in places.items()
    }
    ignored = [name for name in like_coordinates(table.column_names) if name not in (*used, named)]
    return result, [f"column {', '.join(ignored)}: looks like coordinates and is not used"] if ignored else []


def _read(uri: str, s3: S3Options, where: str) -> pa.Table:
    folder, name = Folder(uri, s3).parent()
    path = folder.path(name)
    try:
        if name.lower().endswith(".parquet") and folder.filesystem.isdir(path):
            return pq.read_table(path, filesystem=folder.filesystem)  # as Spark and the like write it
        with folder.filesystem.open(path, "rb") as file:
            if name.lower().endswith(".parquet"):
                return pq.read_table(file)
            line = file.readline().decode("utf-8-sig")
        form = csv_format(folder, path)
        names = next(csv.reader([line], delimiter=form.delimiter), [])
        with folder.filesystem.open(path, "rb") as file:
            as_text = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            )
            table = pyarrow.csv.read_csv(file, parse_options=form, convert_options=as_text)
        return table.rename_columns([name.strip() for name in table.column_names])
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: is no UTF-8 text; save it as CSV UTF-8") from error
    except (OSError, pa.ArrowException, botocore.exceptions.BotoCoreError) as error:
        raise UsageError(f"{where}: cannot read it ({describe(error)})") from error


class _Columns:
    def __init__(self, where: str, table: pa.Table) -> None:
        self._where, self._table = where, table

    def find(self, wanted: str) -> str | None:
        return next((name for name in self._table.column_names if plain(name) == wanted), None)

    def one(self, name: str) -> pa.Array:
        if self._table.column_names.count(name) > 1:
            raise UsageError(f"{self._where}: column `{name}` is there {self._table.column_names.count(name)} times")
        column = self._table[name].combine_chunks()
        if pa.types.is_nested(column.type):
            raise UsageError(f"{self._where}: column `{name}` holds {column.type}, one value a row is wanted")
        return column

    def text(self, name: str) -> pa.Array:
        column = self.one(name)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        return pc.if_else(pc.equal(text, ""), None, text)

    def positions(self) -> tuple[Sequence[str], tuple[pa.Array, pa.Array]]:
        """The columns used, and the coordinates."""
        names = position_columns(list(self._table.column_names), "truth")
        if names and len(names) == 2:
            return self._with_references(names)
        geometry = self.find("geometry")
        if geometry and pa.types.is_binary(self._table.schema.field(geometry).type):
            return [geometry], self._points(geometry)
        nothing = pa.nulls(self._table.num_rows, pa.float64())
        return [], (nothing, nothing)

    def _with_references(self, names: Sequence[str]) -> tuple[Sequence[str], tuple[pa.Array, pa.Array]]:
        """exiftool's tables tell the hemisphere in a column of its own."""
        references = [self.find(f"{plain(name)}ref") for name in names]
        axes = []
        for name, reference in zip(names, references, strict=True):
            letters = self.text(reference).to_pylist() if reference else None
            axes.append(self._degrees(name, letters))
        return [*names, *(reference for reference in references if reference)], tuple(axes)

    def _degrees(self, name: str, letters: list[str | None] | None) -> pa.Array:
        column = self.one(name)
        if letters is None:
            try:
                return pc.if_else(pc.is_nan(numbers := column.cast(pa.float64())), None, numbers)
            except pa.ArrowException:
                pass
        texts = self.text(name).to_pylist()
        return pa.array(
            [self._one_value(name, row, text, letters and letters[row]) for row, text in enumerate(texts)], pa.float64()
        )

    def _one_value(self, name: str, row: int, text: str | None, letter: str | None) -> float | None:
        if text is None or text.lower() in _NO_VALUE:
            return None
        text = text.replace(",", ".") if _DECIMAL_COMMA.match(text) else text
        other = ([1.0], "N" if "lat" not in plain(name) else "E")  # any that is told, and makes no (0, 0)
        axes = (text, letter, *other) if "lat" in plain(name) else (*other, text, letter)
        found = read_position(*axes, "table")
        if found.state == "unreadable":
            raise UsageError(f"{self._where}: column `{name}`: {text!r} in row {row + 1} is no coordinate")
        return None if found.lat is None else found.lat if axes[0] == text else found.lon

    def _points(self, name: str) -> tuple[pa.Array, pa.Array]:
        """Of GeoParquet's geometry; longitude comes first there."""
        column = json.loads((self._table.schema.metadata or {}).get(b"geo", b"{}")).get("columns", {}).get(name, {})
        crs = column.get("crs")
        if crs and crs.get("id", {}).get("code") not in (4326, "CRS84"):
            raise UsageError(
                f"{self._where}: column `{name}` is in {crs.get('name')}; longitude and latitude (WGS84) are wanted"
            )
        points = shapely.from_wkb(self.one(name).to_numpy(zero_copy_only=False))
        points = np.where(shapely.get_type_id(points) == shapely.GeometryType.POINT, points, None)
        return tuple(pa.array(get(points), from_pandas=True) for get in (shapely.get_y, shapely.get_x))
