"""One service on a real cluster, for all who ask it over HTTP."""

import hashlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from ray import serve

from geoloc.serving.options import ModelOptions, ServingOptions

KEY, ANOTHER_KEY = "a key of ours", "somebody else's"


@pytest.fixture(scope="package")
def options(toy_index, toy_base, toy_adapter, tmp_path_factory) -> ServingOptions:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    owners = {"tests": KEY, "others": ANOTHER_KEY}
    keys.write_text("".join(f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n" for name, key in owners.items()))
    return ServingOptions(
        recipe="georanker-retrieved",
        encoder="lite",
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


class Service:
    """Deployed as on any cluster, by ``serve deploy``."""

    def __init__(self, dashboard: str, folder: Path, options: ServingOptions) -> None:
        self._dashboard, self._file, self._options = f"http://{dashboard}", folder / "serve.yaml", options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"

    def deploy(self, models: ModelOptions | None = None) -> None:
        """``models``: other ones for the copies that run."""
        changed = (
            [{"name": name, "user_config": models.model_dump()} for name in ("Api", "RankingModels")] if models else []
        )
        application = {
            "name": "geoloc",
            "route_prefix": "/",
            "import_path": "geoloc.serving.app:build",
            "args": self._options.model_dump(exclude_defaults=True),
            "deployments": changed,
        }
        http = {"host": "127.0.0.1", "port": self._port}
        self._file.write_text(yaml.safe_dump({"http_options": http, "applications": [application]}))
        command = [Path(sys.executable).parent / "serve", "deploy", self._file, "--address", self._dashboard]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="package")
def service(ray_cluster, options, tmp_path_factory):
    service = Service(ray_cluster.dashboard_url, tmp_path_factory.mktemp("service"), options)
    service.deploy()
    until = time.monotonic() + 180
    while (state := serve.status().applications["geoloc"]).status != "RUNNING":
        assert state.status == "DEPLOYING", state
        assert time.monotonic() < until, state
        time.sleep(0.5)
    yield service
    serve.shutdown()


@pytest.fixture(scope="package")
def address(service) -> str:
    return service.address


@pytest.fixture
def client(address):
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


@pytest.fixture(scope="package")
def photo(toy) -> bytes:
    return next(path for path in sorted((toy / "archive").rglob("*.jpg")) if path.stat().st_size > 5000).read_bytes()
