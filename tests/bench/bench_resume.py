"""An archive of ten million photos with 90 % done: listing it again, resuming, and proving that rows out = photos in, each in a
process of its own.

python -m tests.bench.bench_resume [PHOTOS]
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.pipeline.publication import open_run
from geoloc.results.geoparquet import with_geometry
from geoloc.schema import LISTING, RESULT
from geoloc.storage import Folder

PART = 25_000


def main(photos: int = 10_000_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        alone(f"first listing, of {photos:,} photos", first_listing, folder, photos)
        alone("results of 90 % of them", fill, folder, photos)
        alone("second listing, nothing new", second_listing, folder, photos)
        alone("second listing, a tenth new, 1 % changed, 1 % gone", third_listing, folder, photos)
        alone("resume: until the first unit can start", resume, folder)
        alone("proof that rows out = photos in", prove, folder)


def alone(what: str, function: Callable[..., str], *arguments: object) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said, seconds, peak, before = pool.apply(measured, (function, *arguments))
    print(f"{what}: {seconds:.0f} s, {peak:.0f} MB at the peak ({before:.0f} before): {said}", flush=True)


def measured(function: Callable[..., str], *arguments: object) -> tuple[str, float, float, float]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter()
    said = function(*arguments)
    return said, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, before


def first_listing(folder: str, photos: int) -> str:
    open_run(Folder(folder)).manifest.append(listing(photos))
    return f"{size(Path(folder) / 'manifest'):.0f} MB"


def fill(folder: str, photos: int) -> str:
    run, done = open_run(Folder(folder)), photos * 9 // 10
    order = np.random.default_rng(0).permutation(done // 100)[:, None] * 100 + np.arange(100)  # as workers finish
    for ids in order.reshape(-1, PART):
        run.parts.add(results(ids))
    return f"{size(Path(folder) / 'geotags'):.0f} MB"


def second_listing(folder: str, photos: int) -> str:
    return str(open_run(Folder(folder)).manifest.append(listing(photos), counts=lambda uri: True))


def third_listing(folder: str, photos: int) -> str:
    batches = listing(photos * 11 // 10, gone=photos // 100, changed=photos // 50)
    return str(open_run(Folder(folder)).manifest.append(batches, counts=lambda uri: True))


def resume(folder: str) -> str:
    units, left = open_run(Folder(folder)).pending()
    return f"{left:,} photos in {len(units):,} units"


def prove(folder: str) -> str:
    return f"{open_run(Folder(folder)).reconcile():,} missing"


def listing(photos: int, gone: int = 0, changed: int = 0) -> Iterator[pa.RecordBatch]:
    """Without the first ``gone``; those before ``changed`` have other etags."""
    for first in range(gone, photos, 8_192):
        numbers = range(first, min(first + 8_192, photos))
        uris = [f"s3://a-bucket-with-photos/archive/{n // 10_000:04d}/IMG_{n:08d}.jpg" for n in numbers]
        etags = [f'"{(n + (n < changed) * photos) * 2654435761 % 2**128:032x}"' for n in numbers]
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
    main(*map(int, sys.argv[1:]))
