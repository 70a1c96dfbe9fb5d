"""One service on a real cluster, for all who ask it over HTTP."""

import hashlib
import socket

import httpx
import pytest
from ray import serve

from geoloc.serving.app import build
from geoloc.serving.options import ServingOptions

KEY = "a key of ours"


@pytest.fixture(scope="package")
def options(toy_index, toy_base, toy_adapter, tmp_path_factory) -> ServingOptions:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"tests {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    return ServingOptions(
        preset="lite",
        index=str(toy_index),
        candidates=8,
        ranker_model=str(toy_base),
        ranker_adapter=str(toy_adapter),
        keys=str(keys),
        photos_a_minute=100_000,
        max_photo_mb=1,
        max_megapixels=5,
        max_batch=3,
        max_waiting=16,
        s3_prefix="s3://served/photos",
    )


@pytest.fixture(scope="package")
def address(ray_cluster, options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(options), name="geoloc")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture
def client(address):
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


@pytest.fixture(scope="package")
def photo(toy) -> bytes:
    return next(path for path in sorted((toy / "archive").rglob("*.jpg")) if path.stat().st_size > 5000).read_bytes()
