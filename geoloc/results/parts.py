"""A folder of Parquet files that rows are added to, by many processes at once, and never half."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.storage import Folder

READ_AHEAD = 16
T = TypeVar("T")
Each = Callable[[Callable, Iterable], Iterator]
"""``map``, or the like of it on many processes: what is given to it can be pickled."""


@dataclass(frozen=True)
class Parts:
    """Every row has an ``id``."""

    folder: Folder

    def names(self) -> list[str]:
        return [name for name in self.folder.names() if name.endswith(".parquet")]

    def add(self, table: pa.Table) -> str:
        """Returns the file's name: of the run's turn to write, and its ids, so a task that is run twice writes the same file twice."""
        term = self.folder.fence.term if self.folder.fence else 0
        name = hashlib.blake2b(np.sort(table["id"].to_numpy()).tobytes(), digest_size=8).hexdigest()
        name = f"part-{term:06d}-{name}.parquet"
        self.write(name, table)
        return name

    def write(self, name: str, table: pa.Table) -> None:
        """A part without rows is none, and goes."""
        if not table.num_rows:
            self.folder.delete(name)
            return
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=65_536)
        self.folder.write(name, sink.getvalue().to_pybytes())

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """``columns``: in this order; ``candidates.list.element.lat`` is that field of lists alone."""
        with self.folder.filesystem.open(self.folder.path(name), "rb") as file:
            table = pq.ParquetFile(file).read(columns)
        return table.select(list(dict.fromkeys(name.split(".")[0] for name in columns))) if columns else table

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All rows, a file at a time."""
        return (self.read(name, columns) for name in self.names())

    def ids(self, reverse: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        """The ids in each file, by the files' names, or from the last to the first; few at a time are held."""
        names = sorted(self.names(), reverse=reverse)
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for start in range(0, len(names), READ_AHEAD):
                some = names[start : start + READ_AHEAD]
                yield from zip(some, pool.map(lambda name: self.read(name, ["id"])["id"].to_numpy(), some), strict=True)

    def each(self, read: Callable[[str], T]) -> Iterator[T]:
        """Of every file, by its name, in their order; some are read ahead."""
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            yield from pool.map(read, self.names())

    def rows(self, name: str) -> int:
        """Of a file."""
        with self.folder.filesystem.open(self.folder.path(name), "rb") as file:
            return pq.read_metadata(file).num_rows

    def whole(self, name: str, columns: list[str]) -> bool:
        """Whether a file is Parquet that can be read, with those columns."""
        try:
            with self.folder.filesystem.open(self.folder.path(name), "rb") as file:
                return pq.ParquetFile(file).schema_arrow.names == columns
        except (OSError, pa.ArrowException):
            return False

    def set_aside(self, name: str) -> None:
        """Move a file away, to a folder ``set-aside`` beside this one."""
        aside = self.folder.parent()[0] / "set-aside"
        aside.filesystem.makedirs(aside.path(), exist_ok=True)
        self.folder.filesystem.mv(self.folder.path(name), aside.path(name))

    def remove_drafts(self) -> None:
        """Delete what a killed process left half-written on a local disk."""
        if self.folder.is_local:
            for name in self.folder.names():
                if name.endswith(".tmp"):
                    self.folder.delete(name)
