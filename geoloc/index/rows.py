"""The rows that workers left in parts, as an index wants them: those that were indexed, in order."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.results.parts import Parts

BUCKET_BYTES = 64 << 20
"""That are sorted at once, about."""


def indexed_rows(parts: Parts) -> int:
    return sum(pc.sum(pc.equal(table["status"], "indexed")).as_py() or 0 for table in parts.tables(["status"]))


def in_order(parts: Parts, scratch: Path, status: str = "indexed") -> Iterator[pa.Table]:
    """The rows of that status of all parts by ascending id, some BUCKET_BYTES at a time, whatever parts overlap.

    They are sorted on disk: ``scratch`` holds a copy of them, which dwindles as they are handed out.
    """
    ids = [table["id"].filter(pc.equal(table["status"], status)) for table in parts.tables(["id", "status"])]
    ids = np.sort(np.concatenate([np.zeros(0, np.int64), *(column.to_numpy() for column in ids)]))
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".sorting-") as folder:
        firsts: np.ndarray | None = None
        for table in parts.tables():
            table = table.filter(pc.equal(table["status"], status))
            if not table.num_rows:
                continue
            if firsts is None:
                firsts = ids[:: max(1, BUCKET_BYTES * table.num_rows // max(1, table.nbytes))]
            bucket = np.searchsorted(firsts, table["id"].to_numpy(), side="right") - 1
            for number in np.unique(bucket):
                _append(Path(folder, str(number)), table.filter(pa.array(bucket == number)))
        for number in range(0 if firsts is None else len(firsts)):
            path = Path(folder, str(number))
            yield pa.concat_tables(_tables(path)).sort_by("id")
            path.unlink()


def _append(path: Path, table: pa.Table) -> None:
    """As a stream of its own behind those that are there."""
    with path.open("ab") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _tables(path: Path) -> Iterator[pa.Table]:
    with path.open("rb") as file:
        while file.peek(1):
            with pa.ipc.open_stream(file) as reader:
                yield reader.read_all()
