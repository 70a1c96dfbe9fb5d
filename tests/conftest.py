"""What tests share: one Ray cluster, one S3 server, one small planet."""

import contextlib
import dataclasses
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.browser import browser as browser

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_addoption(parser):
    parser.addoption(
        "--slow", action="store_true", help="with the tests marked slow, and workers killed in every training"
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "slow: a minute or more, of a fault that a quicker test, or a benchmark, meets too"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def ray_cluster(s3):
    """After the S3 server, whose environment its workers inherit."""
    import logging
    import tempfile

    import ray

    from geoloc.serving.service import put_haproxy_in_front

    with tempfile.TemporaryDirectory() as folder:
        put_haproxy_in_front(folder)
        yield ray.init("local", num_cpus=4, logging_level=logging.ERROR, log_to_driver=False)
        ray.shutdown()


def ray_workers(name: str) -> list[psutil.Process]:
    """This session's Ray processes that run something of that name, and nobody else's."""
    return [process for process in psutil.Process().children(recursive=True) if name in _command(process)]


def kill_workers(output: Path, after: int) -> list[int]:
    """Ray Train's, once, when a training has done so many steps. Returns their processes, when it has come to that."""
    killed = []

    def kill() -> None:
        while not killed:
            time.sleep(0.02)
            with contextlib.suppress(OSError, ValueError):
                if json.loads((output / "progress.json").read_bytes())["step"] < after:
                    continue
                for process in ray_workers("RayTrainWorker"):
                    process.kill()
                    killed.append(process.pid)

    threading.Thread(target=kill, daemon=True).start()
    return killed


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


@pytest.fixture(scope="session")
def s3():
    """A boto3 client of an S3 server on this machine, which the environment names as every AWS tool expects."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(names)
    yield boto3.client("s3")
    server.stop()
    os.environ.clear()
    os.environ.update(before)


def with_recipe(options, **changes):
    """Options of a job with other values, those of its recipe among them."""
    ours = {name: value for name, value in changes.items() if name in type(options.method).model_fields}
    others = {name: value for name, value in changes.items() if name not in ours}
    method = type(options.method)(
        **(options.method.model_dump() | ours)
    )  # which are checked, as those of a command line are
    return dataclasses.replace(options, method=method, **others)


@pytest.fixture(scope="session")
def planet():
    from geoloc.toy.planet import Planet

    return Planet(cities=12, countries=4, continents=3)


@pytest.fixture(scope="session")
def toy(tmp_path_factory, planet) -> Path:
    """``references/`` (60), ``archive/`` (40) and ``truth.csv`` of a planet of 12 cities."""
    from geoloc.toy.archive import write_archive, write_references

    folder = tmp_path_factory.mktemp("toy")
    write_references(folder / "references", planet, 60)
    write_archive(folder / "archive", folder / "truth.csv", planet, 40)
    return folder


@pytest.fixture(scope="session")
def toy_index(toy, ray_cluster) -> Path:
    from geoloc.pipeline.references import IndexOptions, build_index

    assert build_index(IndexOptions(str(toy / "references"), str(toy / "index"), encoder="lite")) == 0
    return toy / "index"


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory) -> Path:
    """A Qwen2-VL with random weights."""
    from geoloc.toy.models import write_qwen2_vl

    return write_qwen2_vl(tmp_path_factory.mktemp("base"))


def opinionated(base: str):
    """A ranker with an adapter that says something: LoRA starts at the identity."""
    import torch

    from geoloc.ranking.georanker import load_base, with_new_adapter

    torch.manual_seed(1)
    tuned = with_new_adapter(load_base(base))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return tuned.eval()


@pytest.fixture(scope="session")
def toy_adapter(toy_base, tmp_path_factory) -> Path:
    """A ranker's, of opinions but without knowledge, that was asked about little pictures."""
    from geoloc.ranking.georanker import save_adapter
    from geoloc.ranking.options import PromptOptions, write_prompt
    from geoloc.storage import Folder

    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(opinionated(str(toy_base)), folder)
    write_prompt(Folder(str(folder)), PromptOptions(negatives=2, max_pixels=9 * 28 * 28))
    return folder


@pytest.fixture
def toy_tower(monkeypatch):
    """A toy's image tower passes for the one that GeoCLIP's head was trained on."""
    tower = {"width": 64, "layers": 2, "patch_size": 16, "image_size": 64, "embed_dim": 768, "quick_gelu": None}
    monkeypatch.setattr("geoloc.encoders.config.GEOCLIP_TOWER", tower)


@pytest.fixture
def small_gallery(monkeypatch) -> int:
    """The first places of GeoCLIP's gallery alone: encoding all of them takes a while. Returns how many."""
    from geoloc.encoders.geoclip import geoclip_gallery

    lat, lon = geoclip_gallery()
    monkeypatch.setattr("geoloc.index.gallery.geoclip_gallery", lambda: (lat[:3_000], lon[:3_000]))
    return 3_000


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.exists():
        pytest.skip("needs the shared data beside the repository")
    return SHARED / "data"
