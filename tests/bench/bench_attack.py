"""What hostile files cost, and what honest people see of it.

    python -m tests.bench.bench_attack INDEX FOLDER [alone|service|archive …]

FOLDER has honest photos; INDEX is one of encoder lite. Every hostile file of 99 megapixels alone, then one pixel more than
allowed; eight at once against a service with 16 honest clients of another key; ten of them in an archive of 300 photos.
"""

import asyncio
import collections
import contextlib
import hashlib
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import ray
from ray import serve

from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.views import View
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.recipes.options import RecipeOptions
from geoloc.serving.app import build
from geoloc.serving.options import ServingOptions
from geoloc.serving.service import put_haproxy_in_front
from tests.hostile import hostile

MEGAPIXELS, ALLOWED = 99, 100
ADDRESS, HONEST, ATTACKER = "http://127.0.0.1:8124", "honest", "attacker"


def main() -> None:
    index, photos = sys.argv[1], sorted(Path(sys.argv[2]).rglob("*.jpg"))[:300]
    files, parts = hostile(MEGAPIXELS), sys.argv[3:] or ["alone", "service", "archive"]
    if "alone" in parts:
        alone(files)
        one_pixel_more()
    if "service" in parts:
        service(index, [path.read_bytes() for path in photos[:200]], files)
    if "archive" in parts:
        archive(index, photos, files)


def alone(files: dict[str, bytes]) -> None:
    print("| file | MB | answer | seconds | peak, MB |\n|---|---|---|---|---|")
    for name, data in files.items():
        with Decoder(DecodeOptions(View(224), ALLOWED * 10**6, max_seconds=20)) as decoder:
            decoder.examine(b"")
            peak, done = [0], threading.Event()
            watch = threading.Thread(target=peak_of, args=(decoders()[-1], peak, done))
            watch.start()
            start = time.perf_counter()
            row = decoder.examine(data)
            seconds = time.perf_counter() - start
            done.set()
            watch.join()
        answer = row.get("error_kind") or "read"
        print(f"| {name} | {len(data) / 1e6:.2f} | {answer} | {seconds:.2f} | {peak[0]:.0f} |", flush=True)


def one_pixel_more() -> None:
    kinds, options = collections.Counter(), DecodeOptions(View(32), 1_000_000)
    with Decoder(options) as decoder:
        sizes = {name: decoder.examine(data) for name, data in hostile(0.9).items()}
    for name, data in hostile(0.9).items():
        if "width" in sizes[name] and sizes[name]["width"] > 64:
            most = sizes[name]["width"] * sizes[name]["height"] - 1
            with Decoder(DecodeOptions(View(32), most)) as decoder:
                kinds[decoder.examine(data)["error_kind"]] += 1
    print(f"one pixel more than allowed: {dict(kinds)}", flush=True)


def decoders() -> list[psutil.Process]:
    return running("geoloc.photos.decoder")


def running(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found


def peak_of(process: psutil.Process, peak: list[float], done: threading.Event) -> None:
    while not done.wait(0.01):
        try:
            peak[0] = max(peak[0], process.memory_info().rss / 2**20)
        except psutil.Error:
            return


def service(index: str, photos: list[bytes], files: dict[str, bytes]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        for name in (HONEST, ATTACKER):
            keys.write(f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n")
        keys.flush()
        options = ServingOptions(
            recipe="lite", index=index, photos_a_minute=10**9, max_megapixels=ALLOWED, keys=keys.name
        )
        put_haproxy_in_front(tempfile.mkdtemp())
        ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR")
        serve.start(http_options={"host": "127.0.0.1", "port": 8124})
        serve.run(build(options), name="geoloc")
        asyncio.run(honest(photos, 10))
        before = resident()
        quiet = asyncio.run(honest(photos, 30))
        told("quiet", quiet)
        seen, memory = asyncio.run(attacked(photos, files))
        told("attacked, eight at once", seen)
        print(f"p99 under attack / quiet: {percentile(seen, 99) / percentile(quiet, 99):.2f}")
        asyncio.run(honest(photos, 20))
        print(f"replica, MB: before {before:.0f}, peak {max(memory):.0f}, after {resident():.0f}", flush=True)
        memory = []
        for _ in range(int(os.environ.get("MINUTES", "1"))):
            told("a minute of honest load", asyncio.run(honest(photos, 60)))
            memory.append(round(resident()))
        print(f"replica after each minute of honest load, MB: {memory}", flush=True)
        serve.shutdown()
        ray.shutdown()


async def honest(photos: list[bytes], seconds: float) -> list[tuple[int, float]]:
    """Statuses and latencies that 16 clients see, each one photo after another."""
    seen, until = [], time.monotonic() + seconds
    async with session(HONEST, 16) as client:

        async def one(start: int) -> None:
            number = start
            while time.monotonic() < until:
                seen.append(await ask(client, photos[number % len(photos)]))
                number += 16

        await asyncio.gather(*(one(start) for start in range(16)))
    return seen


async def attacked(photos: list[bytes], files: dict[str, bytes]) -> tuple[list[tuple[int, float]], list[float]]:
    """The honest clients' view while every hostile file is sent three times, eight at once."""
    queue, memory, answers = list(files.items()) * 3, [], collections.Counter()
    random.Random(0).shuffle(queue)
    stopped = asyncio.Event()

    async def attack(client: aiohttp.ClientSession) -> None:
        while queue and not stopped.is_set():
            _, data = queue.pop()
            answers[(await ask(client, data))[0]] += 1

    async def watch() -> None:
        while not stopped.is_set():
            memory.append(resident())
            await asyncio.sleep(0.2)

    async with session(ATTACKER, 8) as client:
        watching = asyncio.create_task(watch())
        attacks = [asyncio.create_task(attack(client)) for _ in range(8)]
        seen = await honest(photos, 60)
        stopped.set()
        await asyncio.gather(watching, *attacks)
    print(f"the attacker got {dict(answers)}; {len(queue)} files were not sent in time")
    return seen, memory


def session(key: str, connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        ADDRESS,
        connector=aiohttp.TCPConnector(limit=connections),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/octet-stream"},
        timeout=aiohttp.ClientTimeout(300),
    )


async def ask(client: aiohttp.ClientSession, data: bytes) -> tuple[int, float]:
    start = time.monotonic()
    async with client.post("/v1/geolocate", data=data) as response:
        await response.read()
    return response.status, time.monotonic() - start


def told(what: str, seen: list[tuple[int, float]]) -> None:
    statuses = collections.Counter(status for status, _ in seen)
    p50, p99 = percentile(seen, 50), percentile(seen, 99)
    print(f"{what}: 16 honest clients got {dict(statuses)}; p50 {p50:.2f} s, p99 {p99:.2f} s", flush=True)


def percentile(seen: list[tuple[int, float]], percent: float) -> float:
    return float(np.percentile([seconds for _, seconds in seen], percent))


def resident() -> float:
    """MB of the replica. Its decoders are processes of their own; as long as one is being started, it looks like another replica."""
    return max(process.memory_info().rss for process in running("ServeReplica")) / 2**20


def archive(index: str, photos: list[Path], files: dict[str, bytes]) -> None:
    """Wall time of 300 photos, and of the same with the ten costliest files among them."""
    worst = ["PNG, 1 pixel wide", "PNG, 16 bits, RGBA", "TIFF, floats", "TIFF, CMYK", "QOI", "WebP, lossless"]
    worst += ["JPEG 2000", "PNG, interlaced", "PNG, 16 bits", next(name for name in files if "scans" in name)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, more in (("warm", []), ("without", []), ("with", worst)):
            (root / name).mkdir()
            for number, path in enumerate(photos):
                (root / name / f"{number:03d}.jpg").symlink_to(path.resolve())
            for number, file in enumerate(more):
                (root / name / f"{30 * number:03d}-hostile.jpg").write_bytes(files[file])
        ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR")
        seconds = {}
        for name in ("warm", "without", "with"):
            start = time.perf_counter()
            geotag_archive(
                ArchiveOptions(str(root / name), str(root / f"{name}-out"), RecipeOptions(recipe="lite", index=index))
            )
            seconds[name] = time.perf_counter() - start
        ray.shutdown()
    print(f"300 photos: {seconds['without']:.1f} s without, {seconds['with']:.1f} s with ten hostile files")


if __name__ == "__main__":
    main()
