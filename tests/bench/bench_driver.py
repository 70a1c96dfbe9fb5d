"""What of the cluster's work is one process's: the job's driver, which hands out photos and hears of parts.

    python -m tests.bench.bench_driver 400000      # one lane, which is the driver
    python -m tests.bench.bench_driver 400000 2    # two

Photos that are not there, and models that do nothing, so that what is left is the moving of rows. Prints processor time of the
driver, and of whoever works for it, for each photo, and how many photos a second that allows one core.
"""

import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import ray

from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.views import View
from geoloc.pipeline.cluster import connect
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.recipes.stage import Stage
from geoloc.schema import LISTING, LOADED
from geoloc.storage import Folder


def nothing(device: str, threads: int):
    def answer(batch: pa.Table) -> pa.Table:
        return batch.select(["id", "status", "error_kind"])

    return answer


def listing(photos: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, photos, 8_192):
        rows = [{"uri": f"/nowhere/{n:09d}.jpg", "size": 1} for n in range(start, min(photos, start + 8_192))]
        yield pa.RecordBatch.from_pylist(rows, LISTING)


class Watch:
    """Processor time of this machine's processes, by what they are called."""

    def __init__(self) -> None:
        self.spent: dict[int, tuple[str, float]] = {}

    def look(self) -> None:
        for process in psutil.process_iter(["pid", "name", "cmdline", "cpu_times"]):
            times = process.info["cpu_times"]
            if times:
                words = " ".join(process.info["cmdline"] or [])
                name = (
                    "driver"
                    if process.info["pid"] == os.getpid()
                    else words
                    if "ray::" in words
                    else process.info["name"]
                )
                self.spent[process.info["pid"]] = name, times.user + times.system

    def since(self, before: "Watch") -> Counter:
        found = Counter()
        for pid, (name, seconds) in self.spent.items():
            found[name.split("(")[0][:40]] += seconds - before.spent.get(pid, ("", 0.0))[1]
        return found


def main(photos: int, lanes: int = 1) -> None:
    os.environ["RAY_ADDRESS"] = "local"
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Folder(str(Path(folder) / "run")), "parts", LOADED)
        run.manifest.append(listing(photos))
        ray.init("local", num_cpus=8 * lanes, logging_level=logging.ERROR, log_to_driver=False)
        connect()
        before, after = Watch(), Watch()
        before.look()
        start = time.perf_counter()
        stream = Stream(
            run,
            LoadOptions(DecodeOptions(View(336))),
            Placement(ClusterOptions(batch_size=256, lanes=lanes), [Stage("nothing", nothing)]),
        )
        work = stream.work()
        after.look()
        print(f"{work.photos:,} photos in {time.perf_counter() - start:.0f} s")
        for name, seconds in after.since(before).most_common(8):
            print(
                f"{name:<42} {seconds:8.1f} s, {1e6 * seconds / photos:8.1f} µs a photo, {photos / seconds:10,.0f} photos/s a core"
            )
        ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
