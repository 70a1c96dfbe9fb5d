"""The manifest: the list of an archive's photos, made once and only ever added to.

A run folder's ``manifest/`` holds generations. A generation is the parts that one listing added (Parquet files
of at most PART_ROWS rows), the ids of photos that it did not find any more and, written last, the JSON file that makes
them count; files without it were left by a listing that died. Ids are row numbers over all generations.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.errors import UsageError
from geoloc.photos.changes import KNOWN, Changes
from geoloc.photos.partition import in_stretches
from geoloc.schema import LISTING, MANIFEST
from geoloc.storage import Folder, NoConditionsError

MANIFEST_FOLDER = "manifest"
"""Of a run's folder."""
PART_ROWS = 131_072
ROW_GROUP_ROWS = 4_096


@dataclass(frozen=True)
class Part:
    name: str
    first_id: int
    rows: int


@dataclass(frozen=True)
class Listed:
    """What a listing changed."""

    added: int
    """Rows: photos that are new or changed."""
    gone: int = 0
    """Photos that are not there any more."""
    moved: int = 0
    """Of the contents that are gone, those that are there under another name."""


class Manifest:
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self.generations = 0
        self.listed_with: dict = {}
        """What the last listing was asked for."""
        self._gone: list[str] = []
        self._first_parts = 0
        """Of the first generation, whose rows replace none."""
        for name in folder.names():
            if name.endswith(".json"):
                self._count(json.loads(folder.read(name)))

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def append(
        self,
        listing: Iterable[pa.RecordBatch],
        listed_with: dict | None = None,
        before: Callable[[], None] = lambda: None,
        counts: Callable[[str], bool] | None = None,
    ) -> Listed:
        """Add what is new or changed in the listing (batches of LISTING) as a generation. None added and none gone is no
        generation, unless it is the first or was asked for otherwise.

        ``counts``: of a photo that is known and not listed, by its uri, whether it is gone; without it none is.
        ``before`` is called before it counts. Raises UsageError where another run has listed meanwhile.
        """
        if not self.generations:
            return self._add(map(_table, listing), listed_with or {}, before)
        with tempfile.TemporaryDirectory(prefix="geoloc-listing-") as folder:
            changes = Changes(Path(folder), self._known(), self.rows, listing, LISTING, counts)
            return self._add(changes.rows(), listed_with or {}, before, changes.gone, changes.moved())

    def _add(
        self,
        tables: Iterable[pa.Table],
        listed_with: dict,
        before: Callable[[], None],
        gone: np.ndarray | None = None,
        moved: int = 0,
    ) -> Listed:
        term = self.folder.fence.term if self.folder.fence else 0
        first_id, parts, prefix = self.rows, [], f"{self.generations:04d}-{term:06d}"
        for table in in_stretches(tables, PART_ROWS):
            part = Part(f"{prefix}-{len(parts):05d}.parquet", first_id, table.num_rows)
            table = table.add_column(0, "id", pa.array(np.arange(first_id, first_id + table.num_rows)))
            if "replaces" not in table.column_names:
                table = table.append_column("replaces", pa.nulls(table.num_rows, pa.int64()))
            self._write(part.name, table.cast(MANIFEST))
            first_id += part.rows
            parts.append(part)
        gone_file = None
        if gone is not None and len(gone):
            gone_file = f"{prefix}-gone.parquet"
            self._write(gone_file, pa.table({"id": gone}))
        if parts or gone_file or not self.generations or listed_with != self.listed_with:
            before()
            marker = {"parts": [asdict(part) for part in parts], "listed_with": listed_with, "gone": gone_file}
            if not self._created(f"{self.generations:04d}.json", json.dumps(marker).encode()):
                raise UsageError(f"OUTPUT {self.folder.parent()[0].uri}: another run has listed its photos meanwhile")
            self._count(marker)
            self._remove_abandoned()
        return Listed(sum(part.rows for part in parts), 0 if gone is None else len(gone), moved)

    def _created(self, name: str, data: bytes) -> bool:
        try:
            return self.folder.create(name, data)
        except NoConditionsError:
            if self.folder.exists(name):
                return False
            self.folder.write(name, data)
            return True

    def _count(self, marker: dict) -> None:
        """A generation, from its JSON file."""
        self.parts += [Part(**part) for part in marker["parts"]]
        self.listed_with = marker["listed_with"]
        self._gone += [marker["gone"]] if marker["gone"] else []
        self.generations += 1
        if self.generations == 1:
            self._first_parts = len(self.parts)

    def _remove_abandoned(self) -> None:
        """What a listing that died has left of the generation that was listed last."""
        counted = {part.name for part in self.parts} | set(self._gone)
        for name in self.folder.names():
            if name.startswith(f"{self.generations - 1:04d}-") and name not in counted:
                self.folder.delete(name)

    def _write(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        self.folder.write(name, sink.getvalue().to_pybytes())

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.folder.path(part.name), filesystem=self.folder.filesystem, columns=columns)

    def dead(self) -> np.ndarray:
        """Ids of the rows whose photo has a newer row, or is not there any more, ascending."""
        columns = [self.read(part, ["replaces"])["replaces"] for part in self.parts[self._first_parts :]]
        columns += [pq.read_table(self.folder.path(n), filesystem=self.folder.filesystem)["id"] for n in self._gone]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *(c.drop_null().to_numpy() for c in columns)]))

    def slice(self, part: Part, start: int, stop: int) -> pa.Table:
        """Rows ``start`` to ``stop`` of a part, reading no more row groups than hold them."""
        first = start // ROW_GROUP_ROWS
        with self.folder.filesystem.open(self.folder.path(part.name), "rb") as file:
            groups = range(first, (stop - 1) // ROW_GROUP_ROWS + 1)
            table = pq.ParquetFile(file).read_row_groups(list(groups))
        return table.slice(start - first * ROW_GROUP_ROWS, stop - start)

    def _known(self) -> Iterator[pa.Table]:
        """Of KNOWN, a part at a time."""
        dead = self.dead()
        for part in self.parts:
            here = dead[slice(*np.searchsorted(dead, (part.first_id, part.first_id + part.rows)))]
            live = np.ones(part.rows, bool)
            live[here - part.first_id] = False
            yield self.read(part, KNOWN.names).select(KNOWN.names).cast(KNOWN).filter(pa.array(live))


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
