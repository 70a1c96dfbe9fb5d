import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group_table

from geoloc.errors import UsageError
from geoloc.pipeline import placement
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.plan import Plan
from geoloc.recipes.stage import Stage


def nodes(monkeypatch, *later: list[dict]) -> None:
    """A cluster that has these nodes' resources at one look after the other, the last for ever."""
    states = iter(later)
    now = []

    def alive() -> list[dict]:
        now[:] = next(states, now)
        there = [{"Alive": True, "Resources": resources, "Labels": {}} for resources in now]
        return [*there, {"Alive": False, "Resources": {"GPU": 8}, "Labels": {}}]

    monkeypatch.setattr(ray, "nodes", alive)
    monkeypatch.setattr(placement, "POLL_S", 0.01)


RETRIEVER = Stage("retriever", print, whole_index=True)


def planned(**options) -> Plan:
    return Placement(ClusterOptions(**options), [RETRIEVER]).plan


def test_what_is_alive_is_planned_for(monkeypatch):
    nodes(monkeypatch, [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}])
    [pool] = planned().pools
    assert (pool.actors, pool.device) == (2, "cuda")


def test_a_growing_cluster_is_waited_for(monkeypatch, caplog):
    caplog.set_level("INFO", "geoloc")
    nodes(monkeypatch, [], [{}], [{"CPU": 4.0}])
    assert planned(gpus=0, wait_minutes=1).pools[0].actors == 1
    assert caplog.text.count("Waiting up to 1 minutes for the cluster to grow") == 1


@pytest.mark.usefixtures("ray_cluster")
def test_gpus_that_have_not_come_up_are_waited_for(monkeypatch):
    coming = [[{"CPU": 4.0}], [{"CPU": 4.0}], [{"CPU": 4.0}, {"CPU": 32.0, "GPU": 8.0}]]
    for options in ({}, {"gpus": 8}, {"gpus": 8, "min_gpus": 2}):
        nodes(monkeypatch, *coming)
        assert planned(wait_minutes=1, **options).gpus == 8
    nodes(monkeypatch, *coming)
    assert planned().pools[0].device == "cpu"  # nobody said to wait
    nodes(monkeypatch, coming[0])
    assert planned(wait_minutes=0.01).pools[0].device == "cpu"  # they did not come
    nodes(monkeypatch, coming[0])
    with pytest.raises(UsageError, match="--gpus 8"):
        planned(gpus=8, wait_minutes=0.01)
    nodes(monkeypatch, coming[0], [{"CPU": 16.0, "GPU": 4.0}])
    assert planned(gpus=8, min_gpus=2, wait_minutes=0.01).gpus == 4
    pending = [group for group in placement_group_table().values() if group["state"] == "PENDING"]
    assert not pending  # what an autoscaler was asked for is taken back


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


def scenario(name: str, folder: Path) -> dict:
    """tests.nodes, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "tests.nodes", name, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_actors_share_gpus_as_planned_and_none_is_on_the_head(tmp_path):
    """Two nodes of two made-up GPUs: of the dear stage, an actor is on each; the cheap stage's two are on two of them. Over two
    lanes, each with half of both."""
    found = scenario("gpus", tmp_path / "scene")
    assert found["status"] == 0
    dear, cheap = found["places"]["dear"], found["places"]["cheap"]
    assert len({tuple(place) for place in dear}) == len(dear) == 4
    assert len({tuple(place) for place in cheap}) == len(cheap) == 2
    everyone = [node for places in found["places"].values() for node, _ in places]
    assert len(set(everyone)) == 2
    assert found["head"] not in everyone
    assert found["rows"] == 60


@pytest.mark.slow
def test_of_lanes_one_that_is_lost_is_begun_again_and_the_others_go_on(tmp_path):
    found = scenario("lanes", tmp_path / "scene")
    assert (found["status"], found["rows"], found["lanes"]) == (0, 400, 3)
    assert sum(lane["to_do"] for lane in found["told"]["lanes"]) == 400
    assert "was lost; another takes up its" in found["log"]


@pytest.mark.slow
def test_nodes_that_join_are_used_and_those_that_are_lost_are_not_waited_for(tmp_path):
    assert scenario("change", tmp_path / "scene") == {"status": 0, "rows": 600}


@pytest.fixture
def namespaces() -> None:
    """What makes two machines of one."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and ip, to make network namespaces")
    if subprocess.run(["ip", "netns", "add", "geoloc-try"], capture_output=True).returncode:
        pytest.skip("may not make network namespaces")
    subprocess.run(["ip", "netns", "del", "geoloc-try"], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("namespaces")
def test_machines_with_disks_of_their_own(tmp_path):
    """Two of them, over a network: what only one sees is refused, and each copies the index once."""
    found = scenario("disks", tmp_path / "scene")
    assert (found["made"], found["located"], found["plan"]) == (0, 0, "2 retriever actors")
    assert found["copies"] == {"disk": 1, "other": 1}
    status, said = found["refused"]
    assert status == 2
    assert re.search(r"error: OUTPUT /.*: 1 of 2 nodes do not see it \(198\.51\.100\.2\); give a bucket", said)
