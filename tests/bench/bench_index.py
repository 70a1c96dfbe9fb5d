"""Writing an index: time, and memory that does not grow with it.

python -m tests.bench.bench_index                  a million vectors, in order
python -m tests.bench.bench_index ROWS KB          from parts of 512 rows that all overlap, with thumbnails of so many kB: the
                                                   assembly that build_index.py ends with
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.index.build import write_index
from geoloc.index.rows import in_order
from geoloc.index.store import IndexInfo
from geoloc.results.parts import Parts
from geoloc.schema import REFERENCE
from geoloc.storage import Folder

ROWS, DIMENSION, BATCH, PART_ROWS = 1_000_000, 768, 4_096, 512


def main(rows: int | None = None, thumbnail_kb: float = 2) -> None:
    before, peak, stop = own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak[0] = max(peak[0], own_memory() - before)

    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        batches, count = (overlapping(Path(folder), rows, thumbnail_kb), rows) if rows else (references(), ROWS)
        start, before, peak[0] = time.perf_counter(), own_memory(), 0.0
        info = write_index(Path(folder, "index"), IndexInfo("photos", "e", "lite", "m", count, DIMENSION), batches)
        size = sum(entry["bytes"] for entry in info.files.values()) / 1e9
        seconds = time.perf_counter() - start
    stop.set()
    print(f"{count:,} x {DIMENSION}, {size:.1f} GB: {seconds:.0f} s, {peak[0]:.0f} MB of memory at the peak")


def overlapping(folder: Path, rows: int, thumbnail_kb: float) -> Iterator[pa.Table]:
    """Parts that each hold every so many-th row."""
    parts, count = Parts(Folder(str(folder / "parts"))), rows // PART_ROWS
    for number, table in enumerate(references(rows // count * count, PART_ROWS, int(1_000 * thumbnail_kb))):
        ids = np.arange(number, rows // count * count, count)[: table.num_rows]
        table = table.set_column(0, "id", pa.array(ids)).set_column(2, "status", pa.array(["indexed"] * len(ids)))
        parts.add(table)
    return in_order(parts, folder)


def references(total: int = ROWS, batch: int = BATCH, thumbnail: int = 2_000) -> Iterator[pa.Table]:
    random = np.random.default_rng(0)
    for first in range(0, total, batch):
        rows = min(batch, total - first)
        vectors = random.standard_normal((rows, DIMENSION), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = np.arange(0, (rows + 1) * DIMENSION, DIMENSION, dtype=np.int32)
        columns = {"id": np.arange(first, first + rows), "lat": np.zeros(rows), "lon": np.zeros(rows)}
        columns |= {
            "uri": [f"s3://bucket/{n}.jpg" for n in range(first, first + rows)],
            "thumbnail": [random.bytes(thumbnail) for _ in range(rows)],
        }
        columns["vector"] = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
        nulls = {field.name: pa.nulls(rows, field.type) for field in REFERENCE if field.name not in columns}
        yield pa.table({name: (columns | nulls)[name] for name in REFERENCE.names}, schema=REFERENCE)


def own_memory() -> float:
    """MB that are this process's own: memory-mapped files, which the system takes back at will, do not count."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
