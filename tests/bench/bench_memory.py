"""Memory of the driver and the workers over 20,000 photos: is it flat?

    python -m tests.bench.bench_memory

Prints, for every 2,500 photos written, each kind of process's own memory (unique set size), and the object store's.
"""

import os
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import psutil

from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions, IndexOptions
from geoloc.pipeline.references import build_index
from geoloc.recipes.options import RecipeOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.planet import Planet
from tests.bench.machine import start_ray

PHOTOS, RENDERED, STEP = 20_000, 2_000, 2_500
KINDS = {"_load": "loaders", "ModelActor": "model", "_Writer": "writer"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_references(root / "references", Planet(), 300)
        write_archive(root / "archive", root / "truth.csv", Planet(), RENDERED)
        files = [path for path in (root / "archive").rglob("*") if path.is_file()]
        for copy in range(1, PHOTOS // RENDERED):
            for number, path in enumerate(files):
                os.link(path, path.with_name(f"{copy}-{number}{path.suffix}"))
        start_ray(2)
        assert build_index(IndexOptions(str(root / "references"), str(root / "index"), "lite")) == 0
        peaks: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(Parts(Folder(str(root / "out" / "geotags"))), peaks, stop))
        watcher.start()
        assert (
            geotag_archive(
                ArchiveOptions(
                    str(root / "archive"), str(root / "out"), RecipeOptions(recipe="lite", index=str(root / "index"))
                )
            )
            == 0
        )
        stop.set()
        watcher.join()
        names = ["driver", *KINDS.values(), "store"]
        print("photos done  " + "  ".join(f"{name:>8}" for name in names) + "   (peak MB)")
        for step in sorted(peaks):
            print(f"{step * STEP:>11}  " + "  ".join(f"{peaks[step][name]:8.0f}" for name in names))


def watch(parts: Parts, peaks: dict, stop: threading.Event) -> None:
    names: set[str] = set()
    rows = 0
    while not stop.wait(1):
        for name in set(parts.names()) - names:
            rows += parts.read(name, ["id"]).num_rows
            names.add(name)
        now: dict[str, float] = defaultdict(float)
        now["driver"] = psutil.Process().memory_full_info().uss / 2**20
        now["store"] = psutil.disk_usage("/dev/shm").used / 2**20
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            for mark, kind in KINDS.items():
                if title.startswith("ray::") and mark in title:
                    try:
                        now[kind] += process.memory_full_info().uss / 2**20
                    except psutil.NoSuchProcess:
                        continue
        for kind, value in now.items():
            peaks[rows // STEP][kind] = max(peaks[rows // STEP][kind], value)


if __name__ == "__main__":
    main()
