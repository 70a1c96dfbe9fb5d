"""What the benchmarks stand on: a Ray cluster of so many CPUs, and an S3 server in a process of its own."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import ray


def start_ray(cpus: int) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("geoloc").setLevel(logging.INFO)
    ray.init(num_cpus=cpus, logging_level=logging.ERROR, log_to_driver=False)


@contextmanager
def start_s3() -> Iterator:
    """A boto3 client; the environment names the server, so start Ray after it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield boto3.client("s3")
    finally:
        server.kill()
