import os
import socket
import subprocess
import sys
import time

import pytest
import ray
from PIL import Image

from geoloc.errors import UsageError
from geoloc.pipeline import cluster
from geoloc.pipeline.cluster import make_plan
from geoloc.pipeline.options import ClusterOptions
from geoloc.recipes.stage import Stage


def nodes(monkeypatch, *later: list[dict]) -> None:
    """A cluster that has these nodes' resources at one look after the other, the last for ever."""
    states = iter(later)
    now = []

    def alive() -> list[dict]:
        now[:] = next(states, now)
        return [{"Alive": True, "Resources": resources} for resources in now] + [
            {"Alive": False, "Resources": {"GPU": 8}}
        ]

    monkeypatch.setattr(ray, "nodes", alive)
    monkeypatch.setattr(cluster, "POLL_S", 0.01)


RETRIEVER = Stage("retriever", print, whole_index=True)


def test_what_is_alive_is_planned_for(monkeypatch):
    nodes(monkeypatch, [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}])
    [pool] = make_plan(ClusterOptions(), [RETRIEVER]).pools
    assert (pool.actors, pool.device) == (2, "cuda")


def test_a_growing_cluster_is_waited_for(monkeypatch, caplog):
    caplog.set_level("INFO", "geoloc")
    nodes(monkeypatch, [], [{}], [{"CPU": 4.0}])
    assert make_plan(ClusterOptions(gpus=0, wait_minutes=1), [RETRIEVER]).pools[0].actors == 1
    assert caplog.text.count("Waiting up to 1 minutes for the cluster to grow") == 1


def test_gpus_that_have_not_come_up_are_waited_for(monkeypatch):
    asked = []
    monkeypatch.setattr(cluster, "_ask_autoscaler", asked.append)
    coming = [[{"CPU": 4.0}], [{"CPU": 4.0}], [{"CPU": 4.0}, {"CPU": 32.0, "GPU": 8.0}]]
    for options in (ClusterOptions(wait_minutes=1), ClusterOptions(gpus=8, wait_minutes=1)):
        nodes(monkeypatch, *coming)
        [pool] = make_plan(options, [RETRIEVER]).pools
        assert (pool.actors, pool.device) == (8, "cuda")
    nodes(monkeypatch, *coming)
    assert make_plan(ClusterOptions(), [RETRIEVER]).pools[0].device == "cpu"  # nobody said to wait
    nodes(monkeypatch, coming[0])
    assert make_plan(ClusterOptions(wait_minutes=0.01), [RETRIEVER]).pools[0].device == "cpu"  # they did not come
    nodes(monkeypatch, coming[0])
    with pytest.raises(UsageError, match="--gpus 8"):
        make_plan(ClusterOptions(gpus=8, wait_minutes=0.01), [RETRIEVER])
    assert asked == [[{"GPU": 1}] * 8, []] * 2  # and taken back, whatever came of it


STARTING = """
import logging, sys
logging.basicConfig(format="%(message)s")
import ray
from geoloc.errors import UsageError
from geoloc.pipeline import cluster
ray.init = lambda address, **others: print("address", address)
try:
    cluster.connect()
except UsageError as error:
    print(error)
"""


def start(tmp_path, **environment: str) -> tuple[str, float]:
    """What a process says that joins a cluster, but for Ray's own part in it, and how long it takes."""
    before = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = before | {"RAY_TMPDIR": str(tmp_path)} | environment
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STARTING], env=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr, time.monotonic() - begin


def test_a_cluster_that_is_gone_is_told_at_once(tmp_path):
    """Ray alone would try for minutes. Nothing listens at a port that is taken and does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{taken.getsockname()[1]}"
        said, seconds = start(tmp_path, RAY_ADDRESS=gone)
        assert f"RAY_ADDRESS {gone}: no Ray cluster answers there" in said
        assert seconds < 60
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(gone)
        said, seconds = start(tmp_path)
        assert "address local" in said
        assert "A Ray cluster that is gone left its address in" in said
        taken.listen()
        assert "address None" in start(tmp_path)[0]
        assert "address None" in start(tmp_path, RAY_ADDRESS=gone)[0]


TWO_NODES = """
import functools
import sys
from pathlib import Path
import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.sources import Source
from geoloc.photos.views import View
from geoloc.pipeline.cluster import connect, make_plan
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.recipes.stage import Stage
from geoloc.schema import LOADED
from geoloc.storage import Folder, S3Options

def where(built, device, threads):
    (Path(built) / ray.get_runtime_context().get_node_id()).touch()
    return lambda batch: pa.table({
        "id": batch["id"], "status": ["located"] * batch.num_rows, "error_kind": pa.nulls(batch.num_rows, pa.string())
    })

nodes = Cluster()
for _ in range(2):
    nodes.add_node(num_cpus=4, num_gpus=int(sys.argv[1]), include_dashboard=False)
ray.init(nodes.address)
connect()
built = Path(sys.argv[3]).parent / "built"
built.mkdir()
stages = [Stage("cheap", functools.partial(where, built), share=0.25), Stage("dear", functools.partial(where, built), cost=16)]
plan = make_plan(ClusterOptions(batch_size=2), stages)
print(plan.describe())
run = Run(Folder(sys.argv[3]), "parts", LOADED)
run.list_photos(Source(sys.argv[2], S3Options()))
assert Stream(run, LoadOptions(DecodeOptions(View(16))), plan).work().photos == 60
print(len(list(built.iterdir())), "nodes")
ray.shutdown()
nodes.shutdown()
"""


def test_two_nodes_of_four_cpus_and_two_gpus(tmp_path):
    """What hung: more than any node has. The GPUs are made up; nobody computes on them."""
    (tmp_path / "photos").mkdir()
    for number in range(60):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / "photos" / f"{number:02d}.png")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", TWO_NODES, "2", str(tmp_path / "photos"), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 cheap actor (0.2 GPU each" in done.stdout
    assert "4 dear actors (0.8 GPU each" in done.stdout
    assert "2 nodes" in done.stdout
