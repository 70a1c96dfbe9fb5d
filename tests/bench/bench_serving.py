"""The service under load, against its own objects called directly.

    python -m tests.bench.bench_serving INDEX FOLDER [MESSY]

FOLDER has photos to ask about; INDEX is one of encoder lite. Two minutes of 200 clients; then a replica that is killed and
models that are changed, under load; then every file of MESSY.
"""

import asyncio
import collections
import json
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pyarrow as pa
import ray
from ray import serve

from geoloc.photos.examine import NOWHERE, DecodeOptions, examined
from geoloc.schema import LOADED
from geoloc.serving.app import build
from geoloc.serving.options import ServingOptions
from geoloc.serving.service import put_haproxy_in_front
from geoloc.serving.stages import Retrieval

ADDRESS = "http://127.0.0.1:8123"
CLIENTS, SECONDS = 200, 120


def main() -> None:
    index, folder = sys.argv[1], Path(sys.argv[2])
    photos = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:200]]
    options = ServingOptions(recipe="lite", index=index, photos_a_minute=10**9)
    before = directly(options, photos)
    put_haproxy_in_front(tempfile.mkdtemp())
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": 8123})
    serve.run(build(options), name="geoloc")
    asyncio.run(load(photos, SECONDS / 12, CLIENTS))
    memory, served = asyncio.run(watched(load(photos, SECONDS, CLIENTS)))
    tell(f"{CLIENTS} clients for {SECONDS} s", served)
    tell("16 clients for 30 s", asyncio.run(load(photos, 30, 16)))
    rate, direct = served.statuses[200] / served.seconds, (before + directly(options, photos)) / 2
    print(f"the objects in one process, two threads: {direct:.1f} photos/s; ratio {rate / direct:.2f}")
    print(f"memory in MB, every 20 s: {memory}", flush=True)
    tell("the replica killed", asyncio.run(meanwhile(photos, kill)))
    changed = options.model_copy(update={"candidates": 10})
    tell("models changed", asyncio.run(meanwhile(photos, lambda: serve.run(build(changed), name="geoloc"))))
    if len(sys.argv) > 3:
        messy = [path.read_bytes() for path in sorted(Path(sys.argv[3]).rglob("*")) if path.is_file()]
        replicas = processes()
        tell(f"{len(messy)} messy files", asyncio.run(load(messy, None, 16)))
        print(f"replicas that died of them: {len(replicas - processes())}")
    serve.shutdown()


def directly(options: ServingOptions, photos: list[bytes]) -> float:
    """Photos/s of the same objects with the best batch size, in a process that does nothing else."""
    code = "import sys, pickle; from tests.bench.bench_serving import best; best(*pickle.load(sys.stdin.buffer))"
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((options, photos)), capture_output=True, check=True
    )
    return float(done.stdout.split()[-1])


def best(options: ServingOptions, photos: list[bytes]) -> None:
    import torch

    torch.set_num_threads(1)
    stage, rates = Retrieval(options.models, threads=2), []
    decode = DecodeOptions(stage.view, 10**8)

    def load(photo: bytes) -> pa.Table:
        """In this process: what another costs is part of what is measured."""
        return pa.Table.from_pylist([{"id": 0} | NOWHERE | examined(photo, NOWHERE, (), decode)], LOADED)

    with ThreadPoolExecutor(2) as decoders:
        for size in (8, 16, 32, 64):
            start = time.perf_counter()
            for at in range(0, len(photos), size):
                stage.locate(list(decoders.map(load, photos[at : at + size])))
            rates.append(len(photos) / (time.perf_counter() - start))
    print(max(rates))


class Seen:
    def __init__(self) -> None:
        self.statuses, self.latencies, self.errors = collections.Counter(), [], []
        self.seconds, self.answers = 0.0, collections.defaultdict(set)


async def load(photos: list[bytes], seconds: float | None, clients: int) -> Seen:
    """For so long, or, where that is None, until each has been answered once; who is told to come again does."""
    seen, start, left = Seen(), time.monotonic(), iter(range(10**9))
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(ADDRESS, connector=connector, timeout=aiohttp.ClientTimeout(120)) as client:

        async def one_client() -> None:
            while (number := next(left)) < (10**9 if seconds else len(photos)):
                while seconds is None or time.monotonic() - start < seconds:
                    if await ask(client, seen, photos[number % len(photos)], number % len(photos)) != 429:
                        break
                if seconds and time.monotonic() - start >= seconds:
                    return

        await asyncio.gather(*(one_client() for _ in range(clients)))
    seen.seconds = time.monotonic() - start
    return seen


async def ask(client: aiohttp.ClientSession, seen: Seen, data: bytes, number: int) -> int | None:
    began = time.monotonic()
    try:
        async with client.post("/v1/geolocate", data=data, headers={"Content-Type": "image/jpeg"}) as response:
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.errors.append(type(error).__name__)
        return None
    seen.statuses[response.status] += 1
    if response.status == 429:
        await asyncio.sleep(float(response.headers["Retry-After"]))
    elif response.status == 200:
        seen.latencies.append(time.monotonic() - began)
        estimate = json.loads(text)["estimate"]
        seen.answers[number].add((estimate["lat"], estimate["lon"]))
    return response.status


async def meanwhile(photos: list[bytes], event) -> Seen:
    async def later() -> None:
        await asyncio.sleep(10)
        await asyncio.to_thread(event)

    seen, _ = await asyncio.gather(load(photos, 60, 16), later())
    return seen


def tell(what: str, seen: Seen) -> None:
    p = np.percentile(seen.latencies or [np.nan], [50, 95, 99, 100])
    different = sum(len(answers) > 1 for answers in seen.answers.values())
    print(
        f"{what}: {dict(seen.statuses)}, {len(seen.errors)} connections lost, {seen.statuses[200] / seen.seconds:.1f} "
        f"photos/s, p50/p95/p99/longest {p[0]:.2f}/{p[1]:.2f}/{p[2]:.2f}/{p[3]:.2f} s, {different} photos with two answers",
        flush=True,
    )


async def watched(work) -> tuple[list[int], Seen]:
    """And the memory meanwhile."""
    task, memory = asyncio.create_task(work), []
    while not task.done():
        memory.append(round(resident()))
        await asyncio.wait([task], timeout=20)
    return memory, await task


def replicas_of(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def processes() -> set[int]:
    return {process.pid for process in replicas_of("ServeReplica")}


def resident() -> float:
    return sum(process.memory_info().rss for process in replicas_of("ServeReplica")) / 2**20


def kill() -> None:
    for process in replicas_of("ServeReplica"):
        process.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    main()
