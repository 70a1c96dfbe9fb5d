import dataclasses
import os
import socket
import subprocess
import sys
import time

import pytest
import ray

from geoloc.errors import UsageError
from geoloc.pipeline.cluster import LOADER_CPUS, make_plan
from geoloc.pipeline.options import ClusterOptions
from geoloc.recipes.stage import Stage


@pytest.fixture
def cluster(monkeypatch):
    def resources(**values):
        monkeypatch.setattr(ray, "cluster_resources", lambda: {key: float(value) for key, value in values.items()})

    return resources


RETRIEVER = Stage("retriever", print, whole_index=True)
BESIDE = dataclasses.replace(RETRIEVER, share=0.25)
RANKER = Stage("ranker", print, cost=16, gpu_rows=16, cpu_rows=16)


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 64, 100])
@pytest.mark.parametrize("stages", [[RETRIEVER], [BESIDE, RANKER], [BESIDE, RANKER, RANKER]])
def test_a_loading_task_always_has_room(cluster, cpus, stages):
    cluster(CPU=cpus)
    plan = make_plan(ClusterOptions(), stages)
    pools = plan.pools
    assert [pool.stage for pool in pools] == stages
    assert {pool.device for pool in pools} == {"cpu"}
    assert plan.loaders >= 1
    assert sum(pool.actors * pool.cpus_each for pool in pools) + LOADER_CPUS <= cpus
    assert all(0 < pool.cpus_each != LOADER_CPUS for pool in pools)


def test_gpus_get_an_actor_each_and_leave_the_cpus_to_loading(cluster):
    cluster(CPU=32, GPU=4)
    [pool] = make_plan(ClusterOptions(), [RETRIEVER]).pools
    assert (pool.actors, pool.gpus_each, pool.cpus_each, pool.device) == (4, 1, 0, "cuda")
    plans = [make_plan(options, [RETRIEVER]) for options in (ClusterOptions(gpus_per_actor=2), ClusterOptions(gpus=2))]
    assert [plan.pools[0].actors for plan in plans] == [2, 2]
    assert make_plan(ClusterOptions(gpus=0), [RETRIEVER]).pools[0].device == "cpu"
    assert make_plan(ClusterOptions(batch_size=5), [RETRIEVER]).pools[0].batch_size == 5


@pytest.mark.parametrize(("gpus", "each"), [(1, 1), (4, 1), (40, 1), (2, 2), (8, 2)])
def test_every_gpu_ranks_and_retrieval_finds_room_beside(cluster, gpus, each):
    cluster(CPU=32, GPU=gpus)
    if gpus == each == 2:
        with pytest.raises(UsageError, match="--gpus-per-actor 2: leaves none of 2 GPUs to the ranker"):
            make_plan(ClusterOptions(gpus_per_actor=each), [BESIDE, RANKER])
        return
    models, rankers = make_plan(ClusterOptions(gpus_per_actor=each), [BESIDE, RANKER]).pools
    assert rankers.actors == (gpus if each == 1 else gpus - each)
    assert (models.batch_size, rankers.batch_size) == (256, 16)
    assert models.actors * models.gpus_each + rankers.actors * rankers.gpus_each <= gpus


def test_stages_get_actors_by_what_they_cost(cluster):
    """A cheap stage keeps up with few actors; what shares a GPU is no more than the GPU."""
    cluster(CPU=96, GPU=32)
    light = Stage("light", print, cost=4)
    pools = make_plan(ClusterOptions(), [BESIDE, light, RANKER]).pools
    assert [pool.actors for pool in pools] == [2, 8, 32]
    assert sum(pool.gpus_each for pool in pools) == pytest.approx(1)


@pytest.mark.parametrize(
    ("have", "options", "message"),
    [
        ({"CPU": 0.5}, ClusterOptions(), "needs at least 1 CPU"),
        ({}, ClusterOptions(), "the cluster has 0 CPU"),
        ({"CPU": 8, "GPU": 1}, ClusterOptions(gpus=2), r"2 GPU \(--gpus\), and the cluster has 8 CPU and 1 GPU"),
        ({"CPU": 8}, ClusterOptions(gpus=3, gpus_per_actor=2), "--gpus-per-actor 2"),
        ({"CPU": 8}, ClusterOptions(batch_size=0), "--batch-size 0"),
    ],
)
def test_a_plan_that_cannot_be_scheduled_is_refused(cluster, have, options, message):
    cluster(**have)
    with pytest.raises(UsageError, match=message):
        make_plan(options, [RETRIEVER])


def test_a_growing_cluster_is_waited_for(monkeypatch):
    grown = iter([{"CPU": 0.0}, {"CPU": 4.0}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: next(grown))
    assert make_plan(ClusterOptions(wait_minutes=1), [RETRIEVER]).pools[0].actors == 1


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
