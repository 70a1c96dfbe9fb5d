"""Writing an index of a million vectors: time, and memory that does not grow with the index.

python -m tests.bench.bench_index
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.index.build import write_index
from geoloc.index.store import IndexInfo
from geoloc.schema import REFERENCE

ROWS, DIMENSION, BATCH = 1_000_000, 768, 4_096


def main() -> None:
    before, peak, stop = own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak[0] = max(peak[0], own_memory() - before)

    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        info = write_index(Path(folder), IndexInfo("photos", "e", "lite", "m", ROWS, DIMENSION), references())
        size = sum(entry["bytes"] for entry in info.files.values()) / 1e9
        seconds = time.perf_counter() - start
    stop.set()
    print(f"{ROWS:,} x {DIMENSION}, {size:.1f} GB: {seconds:.0f} s, {peak[0]:.0f} MB of memory at the peak")


def references() -> Iterator[pa.Table]:
    random = np.random.default_rng(0)
    for first in range(0, ROWS, BATCH):
        rows = min(BATCH, ROWS - first)
        vectors = random.standard_normal((rows, DIMENSION), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = np.arange(0, (rows + 1) * DIMENSION, DIMENSION, dtype=np.int32)
        columns = {"id": np.arange(first, first + rows), "lat": np.zeros(rows), "lon": np.zeros(rows)}
        columns |= {
            "uri": [f"s3://bucket/{n}.jpg" for n in range(first, first + rows)],
            "thumbnail": [bytes(2_000)] * rows,
        }
        columns["vector"] = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
        nulls = {field.name: pa.nulls(rows, field.type) for field in REFERENCE if field.name not in columns}
        yield pa.table({name: (columns | nulls)[name] for name in REFERENCE.names}, schema=REFERENCE)


def own_memory() -> float:
    """MB that are this process's own: memory-mapped files, which the system takes back at will, do not count."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
