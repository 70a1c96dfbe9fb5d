"""Resuming an archive of 5 million photos with 90 % done: time and memory until the first unit can start.

python -m tests.bench.bench_resume
"""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.pipeline.publication import open_run
from geoloc.results.geoparquet import with_geometry
from geoloc.schema import LISTING, RESULT
from geoloc.storage import Folder

PHOTOS, DONE, PART = 5_000_000, 4_500_000, 25_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = open_run(Folder(folder))
        run.manifest.append(listing())
        print(
            f"manifest of {PHOTOS:,} photos written in {time.perf_counter() - start:.0f} s, {size(Path(folder) / 'manifest'):.0f} MB"
        )
        order = np.random.default_rng(0).permutation(DONE // 100)[:, None] * 100 + np.arange(100)  # as workers finish
        for ids in order.reshape(-1, PART):
            run.parts.add(results(ids))
        print(f"results of {DONE:,} photos, {size(Path(folder) / 'geotags'):.0f} MB")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        units, left = open_run(Folder(folder)).pending()
        seconds = time.perf_counter() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"resume: {left:,} photos in {len(units):,} units after {seconds:.1f} s, {grown:.0f} MB above what writing took"
        )
        start = time.perf_counter()
        missing = open_run(Folder(folder)).reconcile()
        print(f"proof that rows out = photos in: {missing:,} missing, {time.perf_counter() - start:.1f} s")
        print(f"peak memory of all this: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def listing() -> Iterator[pa.RecordBatch]:
    for first in range(0, PHOTOS, 8_192):
        numbers = range(first, min(first + 8_192, PHOTOS))
        uris = [f"s3://a-bucket-with-photos/archive/{n // 10_000:04d}/IMG_{n:08d}.jpg" for n in numbers]
        etags = [f'"{n * 2654435761 % 2**128:032x}"' for n in numbers]
        columns = {"uri": uris, "etag": etags, "size": [3_000_000 + n % 1000 for n in numbers]}
        nulls = {field.name: pa.nulls(len(uris), field.type) for field in LISTING if field.name not in columns}
        yield pa.RecordBatch.from_pydict(nulls | columns, schema=LISTING)


def results(ids: np.ndarray) -> pa.Table:
    lat, lon = ids % 17_000 / 100 - 85, ids % 35_000 / 100 - 175
    columns = {"id": ids, "lat": lat, "lon": lon, "status": np.full(len(ids), "located")}
    nulls = {field.name: pa.nulls(len(ids), field.type) for field in RESULT if field.name not in columns}
    return with_geometry(pa.table(nulls | columns).drop_columns("geometry"))


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 2**20


if __name__ == "__main__":
    main()
