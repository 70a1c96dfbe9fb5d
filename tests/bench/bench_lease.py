"""Runs that start at one moment on one folder: how many hold it at once, which is to be one in every try.

python -m tests.bench.bench_lease [TRIES]
"""

import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter

from moto.server import ThreadedMotoServer

from geoloc.errors import UsageError
from geoloc.pipeline.lease import leased
from geoloc.storage import Folder, S3Options

RIVALS, HOLD_S = 4, 0.3


def main(tries: int = 200) -> None:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_REGION="us-east-1",
    )
    S3Options().client().create_bucket(Bucket="leases")
    with tempfile.TemporaryDirectory() as disk:
        for place in (disk, "s3://leases"):
            start, counts = time.perf_counter(), race(place, tries)
            seconds = (time.perf_counter() - start) / tries
            print(
                f"{place.split(':')[0] if '://' in place else 'disk'}: {tries} tries of {RIVALS} runs, holders at once {dict(counts)}, {seconds:.2f} s a try",
                flush=True,
            )
    server.stop()


def race(place: str, tries: int) -> Counter:
    """Tries by the number of runs that held the folder at once."""
    barrier, most, inside = (
        multiprocessing.Barrier(RIVALS),
        multiprocessing.Array("i", tries),
        multiprocessing.Value("i"),
    )
    rivals = [multiprocessing.Process(target=rival, args=(place, tries, barrier, most, inside)) for _ in range(RIVALS)]
    for process in rivals:
        process.start()
    for process in rivals:
        process.join()
    return Counter(most)


def rival(place: str, tries: int, barrier, most, inside) -> None:
    folders = [Folder(f"{place}/{number}") for number in range(tries)]
    for number, folder in enumerate(folders):
        barrier.wait()
        with contextlib.suppress(UsageError), leased(folder):
            with most.get_lock():
                inside.value += 1
                most[number] = max(most[number], inside.value)
            time.sleep(HOLD_S)
            with most.get_lock():
                inside.value -= 1


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
