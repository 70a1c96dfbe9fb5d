"""The rows that workers left in parts, as an index wants them: those that were indexed, in order."""

import heapq
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from geoloc.results.parts import Parts


def indexed_rows(parts: Parts) -> int:
    return sum(pc.sum(pc.equal(table["status"], "indexed")).as_py() or 0 for table in parts.tables(["status"]))


def in_order(parts: Parts, status: str = "indexed") -> Iterator[pa.Table]:
    """The rows of that status of all parts by ascending id, a part's worth at a time.

    Parts overlap only as far as the workers ran beside each other, so what is held is that overlap.
    """
    starts = [(int(ids.min()), name) for name, ids in parts.ids() if len(ids)]
    heapq.heapify(starts)
    waiting: pa.Table | None = None
    while starts:
        _, name = heapq.heappop(starts)
        table = parts.read(name)
        table = table.filter(pc.equal(table["status"], status))
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        waiting = waiting.sort_by("id")
        ready = waiting.num_rows if not starts else pc.sum(pc.less(waiting["id"], starts[0][0])).as_py() or 0
        if ready:
            yield waiting.slice(0, ready)
            waiting = waiting.slice(ready)
