"""The archive job against a plain loop: the same photos from the same S3 server, decoder, encoder, index and threads.

    python -m tests.bench.bench_pipeline ../shared/data/photos

The job's steady rate is what more photos cost once it runs: COUNT over the time that a run of 2 x COUNT photos takes
longer than one of COUNT. Prints both rates and their ratio.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from geoloc.encoders.config import lite
from geoloc.encoders.image import ImageEncoder
from geoloc.index.search import ExactSearcher
from geoloc.index.store import Index
from geoloc.photos.decode import PhotoFile
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions, IndexOptions
from geoloc.pipeline.references import build_index
from geoloc.recipes.options import RecipeOptions
from geoloc.toy.archive import write_references
from geoloc.toy.planet import Planet
from tests.bench.machine import start_ray, start_s3

COUNT = 1000
THREADS = 2


def main(photos: str) -> None:
    with tempfile.TemporaryDirectory() as folder, start_s3() as s3:
        root = Path(folder)
        paths = sorted(Path(photos).rglob("*.jpg"))[:COUNT]
        s3.create_bucket(Bucket="bench")
        for copy in range(3):
            for number, path in enumerate(paths):
                s3.upload_file(str(path), "bench", f"{'one' if copy == 0 else 'more'}/{copy}/{number:05d}.jpg")
        write_references(root / "references", Planet(), 500)
        start_ray(THREADS)
        assert build_index(IndexOptions(str(root / "references"), str(root / "index"), "lite")) == 0
        few = job_seconds("s3://bench/one", root)
        many = job_seconds("s3://bench/more", root)  # 2 x COUNT
        job = COUNT / (many - few)
        loop = loop_rate(root / "index")
        print(f"job {job:.1f} photos/s (steady), loop {loop:.1f} photos/s, ratio {job / loop:.2f}")


def job_seconds(source: str, root: Path) -> float:
    start = time.perf_counter()
    output = root / source.rsplit("/", 1)[-1]
    assert (
        geotag_archive(ArchiveOptions(source, str(output), RecipeOptions(recipe="lite", index=str(root / "index"))))
        == 0
    )
    return time.perf_counter() - start


def loop_rate(index_folder: Path, batch: int = 32) -> float:
    torch.set_num_threads(1)
    encoder, index, fetcher = ImageEncoder(lite(), threads=THREADS), Index(index_folder), Fetcher(FetchOptions())
    searcher = ExactSearcher(index.vectors)
    encoder.encode(np.zeros((batch, 224, 224, 3), np.uint8))
    start = time.perf_counter()
    for first in range(0, COUNT, batch):
        views = []
        for number in range(first, min(first + batch, COUNT)):
            photo = PhotoFile(fetcher.get(f"s3://bench/one/0/{number:05d}.jpg"))
            views.append(encoder.view.of(photo.picture(encoder.view.scale(photo.width, photo.height))))
        _, rows = searcher.search(encoder.encode(np.stack([np.asarray(view) for view in views])), 20)
        assert index.lat[rows].shape == (len(views), 20)
    return COUNT / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1])
