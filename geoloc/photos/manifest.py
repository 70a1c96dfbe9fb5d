"""The manifest: the list of an archive's photos, made once and only ever added to.

A run folder's ``manifest/`` holds generations. A generation is the parts that one listing added (Parquet files
of at most PART_ROWS rows) and, written last, the JSON file that makes them count; parts without it were left by
a listing that died, and the next listing overwrites them. Ids are row numbers over all generations.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.schema import LISTING, MANIFEST
from geoloc.storage import Folder

PART_ROWS = 131_072
ROW_GROUP_ROWS = 4_096


@dataclass(frozen=True)
class Part:
    name: str
    first_id: int
    rows: int


class Manifest:
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self.generations = 0
        self.listed_with: dict = {}
        """What the last listing was asked for."""
        for name in folder.names():
            if name.endswith(".json"):
                generation = json.loads(folder.read(name))
                self.parts += [Part(**part) for part in generation["parts"]]
                self.listed_with = generation["listed_with"]
                self.generations += 1

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def append(
        self,
        listing: Iterable[pa.RecordBatch],
        listed_with: dict | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> int:
        """Add what is new or changed in the listing (MANIFEST without ``id`` and ``replaces``) as a generation.

        A photo is changed if its etag, or its size where there is no etag, or its sidecars differ, or if it came back from
        an archive. Returns the rows added; none added is no generation, unless it is the first or was asked for otherwise.
        ``before`` is called before it counts.
        """
        listed_with = listed_with or {}
        if self.generations:
            listing = [self._new_or_changed(pa.Table.from_batches(listing, LISTING))]
        first_id, parts = self.rows, []
        for table in _in_parts(listing):
            part = Part(f"{self.generations:04d}-{len(parts):05d}.parquet", first_id, table.num_rows)
            table = table.add_column(0, "id", pa.array(np.arange(first_id, first_id + table.num_rows)))
            if "replaces" not in table.column_names:
                table = table.append_column("replaces", pa.nulls(table.num_rows, pa.int64()))
            sink = pa.BufferOutputStream()
            pq.write_table(table.cast(MANIFEST), sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
            self.folder.write(part.name, sink.getvalue().to_pybytes())
            first_id += part.rows
            parts.append(part)
        added = sum(part.rows for part in parts)
        if added or not self.generations or listed_with != self.listed_with:
            before()
            marker = json.dumps({"parts": [asdict(part) for part in parts], "listed_with": listed_with})
            self.folder.write(f"{self.generations:04d}.json", marker.encode())
            self.parts += parts
            self.listed_with = listed_with
            self.generations += 1
        return added

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.folder.path(part.name), filesystem=self.folder.filesystem, columns=columns)

    def replaced(self) -> np.ndarray:
        """Ids of the rows whose photo has a newer row."""
        columns = [self.read(part, ["replaces"])["replaces"] for part in self.parts]
        return np.concatenate([np.zeros(0, np.int64), *(c.drop_null().to_numpy() for c in columns)])

    def slice(self, part: Part, start: int, stop: int) -> pa.Table:
        """Rows ``start`` to ``stop`` of a part, reading no more row groups than hold them."""
        first = start // ROW_GROUP_ROWS
        with self.folder.filesystem.open(self.folder.path(part.name), "rb") as file:
            groups = range(first, (stop - 1) // ROW_GROUP_ROWS + 1)
            table = pq.ParquetFile(file).read_row_groups(list(groups))
        return table.slice(start - first * ROW_GROUP_ROWS, stop - start)

    def _new_or_changed(self, listing: pa.Table) -> pa.Table:
        columns = ["id", "uri", "size", "etag", "archived", "sidecars_etag"]
        known = pa.concat_tables([self.read(part, columns) for part in self.parts])
        known = known.filter(pc.invert(pc.is_in(known["id"], pa.array(self.replaced()))))
        row = pc.index_in(listing["uri"], known["uri"].combine_chunks())
        before = known.take(row)
        changes = [_differs(listing[name], before[name]) for name in ("etag", "size")]
        changes.append(_differs(*(pc.fill_null(table["sidecars_etag"], "") for table in (listing, before))))
        changes.append(_differs(pc.fill_null(listing["archived"], False), before["archived"]))
        listing = listing.append_column("replaces", before["id"])
        return listing.filter(functools.reduce(pc.or_, changes, pc.is_null(row)))


def _differs(new: pa.ChunkedArray, old: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where both are known and not equal."""
    return pc.fill_null(pc.not_equal(new, old), False)


def _in_parts(listing: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[pa.Table]:
    waiting, rows = [], 0
    for batch in listing:
        waiting.append(pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch)
        rows += batch.num_rows
        while rows >= PART_ROWS:
            table = pa.concat_tables(waiting)
            yield table.slice(0, PART_ROWS)
            waiting, rows = [table.slice(PART_ROWS)], rows - PART_ROWS
    if rows:
        yield pa.concat_tables(waiting)
