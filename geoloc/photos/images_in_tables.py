"""Parquet files that hold the pictures themselves, as data sets are published: each row is a photo, named by its file and row.

Of ``image`` (bytes, or Hugging Face's struct of ``bytes`` and ``path``), ``jpg``, ``png`` and the like. Rows are read a row group at a
time, of which the last few are kept: photos that stand together come together.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.columns import plain
from geoloc.errors import PhotoError
from geoloc.storage import Folder, S3Options, describe, local_etag

SUFFIX = ".parquet"
NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "imagebytes", "bytes", "content", "picture", "photo")
"""Of columns, plain (geoloc.columns), in the order in which they are looked for."""
MOST_GROUP_BYTES = 1 << 30
KEPT_GROUPS = 2


@dataclass(frozen=True)
class ImageColumn:
    name: str
    is_struct: bool
    """With fields ``bytes`` and, maybe, ``path``."""
    has_path: bool = False

    @property
    def data(self) -> str:
        """Of Parquet's leaves, the one with the bytes."""
        return f"{self.name}.bytes" if self.is_struct else self.name

    @classmethod
    def of(cls, schema: pa.Schema) -> "ImageColumn | None":
        """None where there is none, or a column that says where the photos are."""
        by_name = {plain(name): name for name in schema.names}
        if by_name.keys() & {"uri", "sourcefile"}:
            return None
        for wanted in NAMES:
            if (name := by_name.get(wanted)) is None:
                continue
            kind = schema.field(name).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return cls(name, is_struct=False)
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return cls(name, is_struct=True, has_path=kind.get_field_index("path") >= 0)
        return None


@dataclass(frozen=True)
class ImageTable:
    """Of a source: the files, and which of their columns holds pictures."""

    folder: Folder
    files: list[str]
    column: ImageColumn

    @classmethod
    def find(cls, uri: str, s3: S3Options) -> "ImageTable | None":
        """Where a .parquet file, or a folder of such, holds pictures. Raises OSError and ArrowException."""
        folder, name = Folder(uri.rstrip("/"), s3).parent()
        files, filesystem = [name], folder.filesystem
        if filesystem.isdir(folder.path(name)):
            folder = folder / name
            found = filesystem.find(folder.path())
            files = sorted(path.removeprefix(folder.path() + "/") for path in found if path.lower().endswith(SUFFIX))
        if not files:
            return None
        with filesystem.open(folder.path(files[0]), "rb") as file:
            column = ImageColumn.of(pq.read_schema(file))
        return column and cls(folder, files, column)

    def rows(self) -> Iterator[tuple[pa.Table, list[dict]]]:
        """For each file what else it tells of its photos, and their places in it: rows of LISTING."""
        for name in self.files:
            path = self.folder.path(name)
            uri, etag = f"{self.folder.uri.rstrip('/')}/{name}", etag_of(self.folder, name)
            with self.folder.filesystem.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                others = [one for one in parquet.schema_arrow.names if one != self.column.name]
                paths = [f"{self.column.name}.path"] if self.column.has_path else []
                table = parquet.read([*others, *paths])
            names = [None] * parquet.metadata.num_rows
            if paths:
                names = pc.struct_field(table[self.column.name], "path").to_pylist()
                table = table.drop_columns([self.column.name])
            yield (
                table,
                [
                    {
                        "uri": "/".join([uri, f"{row:07d}", *_basename(at)]),
                        "container": uri,
                        "offset": row,
                        "etag": etag,
                    }
                    for row, at in enumerate(names)
                ],
            )


def _basename(path: str | None) -> list[str]:
    name = (path or "").replace("\\", "/").rsplit("/", 1)[-1]
    return [name] if name else []


def etag_of(folder: Folder, name: str) -> str:
    """Changes with the file's content."""
    if folder.is_local:
        return local_etag(os.stat(folder.path(name)))
    return folder.filesystem.info(folder.path(name))["ETag"]


class TableImages:
    """Reads them. By many threads at once."""

    def __init__(self, s3: S3Options) -> None:
        self._s3, self._groups = s3, OrderedDict()
        self._files: dict[str, tuple[str, np.ndarray, ImageColumn | None]] = {}
        self._opening, self._reading = threading.Lock(), {}

    def get(self, uri: str, row: int, etag: str | None) -> bytes:
        """Of the file's row. Raises PhotoError."""
        try:
            found, bounds, column = self._opened(uri)
            if etag is not None and etag != found:
                raise PhotoError("changed", "its file is not what was listed; the next run takes it up")
            if column is None or not 0 <= row < bounds[-1]:
                raise PhotoError("not_found", "there is no such row in its file")
            group = int(np.searchsorted(bounds, row, side="right")) - 1
            data = self._group(uri, group, column)[row - int(bounds[group])].as_py()
        except FileNotFoundError as error:
            raise PhotoError("not_found", "its file is not there") from error
        except PermissionError as error:
            raise PhotoError("forbidden", "its file may not be read") from error
        except pa.ArrowException as error:
            raise PhotoError("corrupt", f"its file cannot be read ({describe(error)})") from error
        except OSError as error:
            raise PhotoError("network", describe(error)) from error
        if not data:
            raise PhotoError("empty", "the row has no bytes")
        return data

    def _opened(self, uri: str) -> tuple[str, np.ndarray, ImageColumn | None]:
        """Its etag, where its row groups begin, and the column."""
        with self._opening:
            if uri not in self._files:
                folder, name = Folder(uri, self._s3).parent()
                etag = etag_of(folder, name)
                with folder.filesystem.open(folder.path(name), "rb") as file:
                    parquet = pq.ParquetFile(file)
                    metadata, column = parquet.metadata, ImageColumn.of(parquet.schema_arrow)
                rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
                self._files = {uri: (etag, np.cumsum([0, *rows]), column), **dict(list(self._files.items())[:7])}
            return self._files[uri]

    def _group(self, uri: str, group: int, column: ImageColumn) -> pa.ChunkedArray:
        with self._opening:
            if (uri, group) in self._groups:
                self._groups.move_to_end((uri, group))
                return self._groups[uri, group]
            reading = self._reading.setdefault((uri, group), threading.Lock())
        with reading:  # of all threads that want photos of it, one reads it
            with self._opening:
                if (uri, group) in self._groups:
                    return self._groups[uri, group]
            folder, name = Folder(uri, self._s3).parent()
            with folder.filesystem.open(folder.path(name), "rb") as file:
                parquet = pq.ParquetFile(file)
                size = _bytes(parquet.metadata.row_group(group), column)
                if size > MOST_GROUP_BYTES:
                    raise PhotoError("too_large", f"its row group has {size / 2**30:.1f} GB; the limit is 1")
                found = parquet.read_row_group(group, [column.data])[column.name]
            found = pc.struct_field(found, "bytes") if column.is_struct else found
            with self._opening:
                self._groups[uri, group] = found
                while len(self._groups) > KEPT_GROUPS:
                    self._groups.popitem(last=False)
                self._reading.pop((uri, group), None)
        return found


def _bytes(group: pq.RowGroupMetaData, column: ImageColumn) -> int:
    """Of the pictures."""
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(one.total_uncompressed_size for one in columns if one.path_in_schema == column.data)
