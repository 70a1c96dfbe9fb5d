"""What is new, changed or gone in a listing, by a join on disk whose memory does not grow with the archive."""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.photos.partition import Partition, files_for

_COMPARED = {"etag": pa.string(), "size": pa.int64(), "archived": pa.bool_(), "sidecars_etag": pa.string()}
KNOWN = pa.schema({"id": pa.int64(), "uri": pa.string()} | _COMPARED)
"""Of the manifest, for the join."""
_LISTED = pa.schema({"at": pa.int64(), "uri": pa.string()} | _COMPARED)


class Changes:
    """Of a listing, against what is known. Once made, it holds 16 bytes a row that is new or changed, and 8 a row that is gone."""

    def __init__(
        self,
        folder: Path,
        known: Iterable[pa.Table],
        rows: int,
        listing: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        counts: Callable[[str], bool] | None = None,
    ) -> None:
        """``known``: tables of KNOWN, ``rows`` in all. ``listing``: batches of ``schema``, spooled to the folder. ``counts``: of what
        is known and not listed, by its uri, whether it is gone, once all is listed; without it nothing is."""
        self._spool, self._schema = folder / "listing.arrow", schema
        listed = self._spool_all(listing)
        count = files_for(max(rows, listed), least=16)
        known_at, listed_at = (Partition(folder, name, count) for name in ("known", "listed"))
        known_at.fill(known, KNOWN)
        listed_at.fill(self._spooled(), _LISTED)
        at, replaces, gone_ids = [], [], [np.zeros(0, np.int64)]
        self._moved_from, self._moved_to = [], []
        for old, new in zip(known_at.tables(KNOWN), listed_at.tables(_LISTED), strict=True):
            row = pc.index_in(new["uri"], old["uri"])
            changed = _changed(new, old, row)
            at.append(new["at"].filter(changed).to_numpy())
            replaces.append(pc.fill_null(old["id"].take(row), -1).filter(changed).to_numpy())
            missing = np.ones(old.num_rows, bool)
            missing[row.drop_null().to_numpy()] = False
            gone = old.filter(pa.array(missing))
            gone = gone.filter(
                pa.array([counts is not None and counts(uri) for uri in gone["uri"].to_pylist()], pa.bool_())
            )
            gone_ids.append(gone["id"].to_numpy())
            self._moved_from.append(_contents(gone))
            self._moved_to.append(_contents(new.filter(pc.is_null(row))))
        at, replaces = np.concatenate(at), np.concatenate(replaces)
        order = np.argsort(at)
        self._at, self._replaces = at[order], replaces[order]
        self.gone = np.sort(np.concatenate(gone_ids))
        """Ids, ascending."""

    def rows(self) -> Iterator[pa.Table]:
        """What is new or changed, in the listing's order, with ``replaces``: the id of what it was, null for what is new."""
        start = 0
        with pa.ipc.open_file(pa.memory_map(str(self._spool))) as reader:
            for number in range(reader.num_record_batches):
                batch = pa.table(reader.get_batch(number))
                first, last = np.searchsorted(self._at, (start, start + batch.num_rows))
                if last > first:
                    replaces = self._replaces[first:last]
                    found = batch.take(self._at[first:last] - start)
                    yield found.append_column("replaces", pa.array(replaces, mask=replaces < 0))
                start += batch.num_rows

    def moved(self) -> int:
        """How many contents are gone from one name and there under another."""
        before, after = np.concatenate(self._moved_from), np.concatenate(self._moved_to)
        return int(np.isin(np.unique(after), before).sum())

    def _spool_all(self, listing: Iterable[pa.RecordBatch]) -> int:
        """Write it down; returns its rows."""
        rows = 0
        with pa.ipc.new_file(str(self._spool), self._schema) as writer:
            for batch in listing:
                writer.write(batch)
                rows += batch.num_rows
        return rows

    def _spooled(self) -> Iterator[pa.Table]:
        """What was written down, for the join."""
        start = 0
        with pa.ipc.open_file(pa.memory_map(str(self._spool))) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                columns = {name: batch[name] for name in _LISTED.names if name != "at"}
                yield pa.table({"at": np.arange(start, start + batch.num_rows)} | columns, schema=_LISTED)
                start += batch.num_rows


def _changed(new: pa.Table, old: pa.Table, row: pa.ChunkedArray) -> pa.ChunkedArray:
    """A photo is changed if its etag, or its size where there is no etag, or its sidecars differ, or if it came back from an
    archive."""
    before = old.take(row)
    changes = [_differs(new[name], before[name]) for name in ("etag", "size")]
    changes.append(_differs(*(pc.fill_null(table["sidecars_etag"], "") for table in (new, before))))
    changes.append(_differs(pc.fill_null(new["archived"], False), before["archived"]))
    return functools.reduce(pc.or_, changes, pc.is_null(row))


def _differs(new: pa.ChunkedArray, old: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where both are known and not equal."""
    return pc.fill_null(pc.not_equal(new, old), False)


def _contents(table: pa.Table) -> np.ndarray:
    """Of rows with an etag and a size, a hash of both, (n,) int64."""
    table = table.select(["etag", "size"]).drop_null()
    pairs = zip(table["etag"].to_pylist(), table["size"].to_pylist(), strict=True)
    return np.array([hash(pair) for pair in pairs], np.int64)
